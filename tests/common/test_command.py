"""The way in of every command: options, exit status, errors in one line, whatever the terminal's encoding."""

import fcntl
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.workspace import ROOT

COMMAND = '''
"""A command."""

if __name__ == "__main__":
    from src.common.command import command

    command("made", failed=2, alone={alone})

{imports}
from pathlib import Path
from pydantic import Field
from src.common.schema import Section


class Options(Section):
    names: list[Path] = Field(description="100 %")
    count: int = Field(3, ge=1, le=9)
    rates: list[float] = Field([1.5])
    loud_: bool = False


def main(names, count, rates, loud_):
    {body}
'''


def write(place, body, imports="", alone=False):
    body = textwrap.indent(body, "    ").lstrip()
    (place / "made.py").write_text(COMMAND.format(imports=imports, body=body, alone=alone))


def run(place, body, imports="", env=None, **options):
    """The command as a process of its own."""
    write(place, body, imports)
    return subprocess.run(
        [sys.executable, "-m", "made", "a"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": f"{ROOT}", **(env or {})},
        timeout=60,
        **{"capture_output": True, **options},
    )


@pytest.fixture
def made(tmp_path, monkeypatch, called):
    """(exit status, standard output, standard error) of the command in this process."""
    monkeypatch.syspath_prepend(tmp_path)

    def call(body, *arguments, failed=1, imports=""):
        write(tmp_path, body, imports)
        sys.modules.pop("made", None)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        importlib.invalidate_caches()
        return called("made", *(arguments or ("a",)), failed=failed)

    return call


def test_options_are_typed_and_the_status_is_what_main_returns(made):
    body = "print(names, count, rates, loud_)\nreturn count"
    status, printed, _ = made(body, "a", "b", "--rates", "1", "2.5", "--loud")
    assert (status, printed) == (3, "[PosixPath('a'), PosixPath('b')] 3 [1.0, 2.5] True\n")
    assert made("pass") == (0, "", "")
    _, listed, _ = made(body, "--help")
    assert "A command." in listed and "--loud" in listed and "(default: 1.5)" in listed and "--debug" in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--count", "0"], "--count: Input should be greater than or equal to 1, got '0'"),
        (["a", "--rates", "1", "inf"], "--rates: Input should be a finite number, got 'inf'"),
        (["a", "--coun", "1"], "unrecognized arguments: --coun 1; --help lists the options"),
        (["--count", "1"], "the following arguments are required: names"),
        (["a", "--\x1b[2J\n"], r"unrecognized arguments: --\x1b[2J\n"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(made, arguments, message):
    status, _, error = made("pass", *arguments)
    assert status == 2 and error.startswith(f"error: {message}") and error.count("\n") == 1


FAULTS = {
    "raise ValueError('one\\ntwo')": "unexpected ValueError: one two; --debug shows where",
    "raise MemoryError": "unexpected MemoryError; --debug shows where",
    "class Panic(BaseException): pass\nraise Panic('of Rust')": "unexpected Panic: of Rust; --debug shows where",
    "open('no\\nfile')": r"no\nfile: No such file or directory",
    "import nowhere": "No module named 'nowhere'; activate the environment",
    "raise OSError('libx.so: cannot open')": "unexpected OSError: libx.so: cannot open; --debug shows where",
    "from src.runtime.errors import InputError; raise InputError('wrong')": "wrong",
}


@pytest.mark.parametrize("body", FAULTS)
def test_every_exception_is_one_line_and_the_status_of_no_result(made, body):
    for failed, where in ((1, {"body": body}), (2, {"body": "pass", "imports": body})):
        status, _, error = made(failed=failed, **where)
        assert status == failed and error.startswith(f"error: {FAULTS[body]}") and error.count("\n") == 1
    _, _, error = made(body, "a", "--debug")
    assert error.startswith("Traceback") and f"error: {FAULTS[body]}" in error.splitlines()[-1]


def test_an_interrupt_is_130(tmp_path):
    body = f"import os; os.kill(os.getpid(), {int(signal.SIGINT)})"
    imports = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    output = run(tmp_path, body, imports=imports)
    assert output.returncode == 130 and output.stderr == b"interrupted\n"


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, rb"\xe9 \u4e2d \udce9"),
        ({"PYTHONIOENCODING": "latin-1"}, b"\xe9 \\u4e2d \\udce9"),
        ({"PYTHONIOENCODING": "utf-8"}, "é 中 ".encode() + rb"\udce9"),
    ],
)
def test_names_are_printed_in_every_encoding(tmp_path, env, shown):
    body = r"import sys; print('\xe9 \u4e2d \udce9'); print('\xe9 \u4e2d \udce9', file=sys.stderr)"
    output = run(tmp_path, body, env=env)
    assert (output.returncode, output.stdout, output.stderr) == (0, shown + b"\n", shown + b"\n")


def test_what_cannot_be_printed_is_no_success(tmp_path):
    body = "print('x' * 100_000)"
    with open("/dev/full", "wb") as full:
        output = run(tmp_path, body, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert output.returncode == 2 and output.stderr == b"error: No space left on device\n"
    reading, writing = os.pipe()
    os.close(reading)
    output = run(tmp_path, "print('x')", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert output.returncode == 2 and output.stderr == b"error: Broken pipe\n"


def test_a_stage_waits_for_another_in_the_same_folder(tmp_path):
    write(tmp_path, "print('ran')", alone=True)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-m", "made", "a"], cwd=tmp_path, env=environment, **pipes) as process:
        assert process.stderr.readline() == f"waiting for another stage that runs in {tmp_path}\n"
        assert process.poll() is None
        os.close(other)
        assert process.communicate(timeout=60) == ("ran\n", "") and process.returncode == 0


def test_every_command_comes_in_this_way():
    """Before its imports, so that one that fails is reported too."""
    paths = [*ROOT.glob("src/*.py"), *ROOT.glob("bench/__main__.py"), *ROOT.glob("bench/op_profile.py")]
    commands = [path for path in paths if "__main__" in path.read_text() and path.name != "__init__.py"]
    assert len(commands) >= 13
    alone = {path.stem for path in commands if "alone=" in path.read_text()}
    assert alone == {path.stem for path in ROOT.glob("src/*.py")} - {
        "__init__",
        "verify",
        "embed",
        "enrol",
        "identify",
        "gallery",
        "calibrate",
        "demo",
    }
    for path in commands:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        start = rf'""".*?"""\n\nif __name__ == "__main__":\n(    import sys\n\n)?    from src.common.command import command\n\n    command\("{re.escape(name)}"'
        assert re.match(start, path.read_text(), re.DOTALL), path
