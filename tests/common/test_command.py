"""The way in of every command: options, exit status, errors in one line, whatever the terminal's encoding."""

import os
import re
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

    command("made", failed={failed})

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


def run(place, body, *arguments, failed=2, imports="", env=None, **options):
    (place / "made.py").write_text(
        COMMAND.format(failed=failed, imports=imports, body=textwrap.indent(body, "    ").lstrip())
    )
    return subprocess.run(
        [sys.executable, "-m", "made", *(arguments or ("a",))],
        cwd=place,
        env={**os.environ, "PYTHONPATH": f"{ROOT}", **(env or {})},
        timeout=60,
        **{"capture_output": True, **options},
    )


def test_options_are_typed_and_the_status_is_what_main_returns(tmp_path):
    body = "print(names, count, rates, loud_)\nreturn count"
    output = run(tmp_path, body, "a", "b", "--rates", "1", "2.5", "--loud")
    assert output.stdout.decode() == "[PosixPath('a'), PosixPath('b')] 3 [1.0, 2.5] True\n" and output.returncode == 3
    assert run(tmp_path, "pass").returncode == 0
    listed = run(tmp_path, body, "--help").stdout.decode()
    assert "A command." in listed and "--loud" in listed and "(default: 1.5)" in listed and "--debug" in listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "--count", "0"], "--count: Input should be greater than or equal to 1, got '0'"),
        (["a", "--count", "nan"], "--count: Input should be a valid integer"),
        (["a", "--rates", "1", "inf"], "--rates: Input should be a finite number, got 'inf'"),
        (["a", "--rates", "nan"], "--rates: Input should be a finite number, got 'nan'"),
        (["a", "--cuont", "1"], "unrecognized arguments: --cuont 1; --help lists the options"),
        (["a", "--coun", "1"], "unrecognized arguments: --coun 1"),
        (["--count", "1"], "the following arguments are required: names"),
        (["a", "--\x1b[2J\n"], r"unrecognized arguments: --\x1b[2J\n"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(tmp_path, arguments, said):
    output = run(tmp_path, "pass", *arguments, failed=1)
    assert output.returncode == 2 and output.stderr.decode().startswith(f"error: {said}")
    assert len(output.stderr.splitlines()) == 1


FAULTS = {
    "raise ValueError('one\\ntwo')": "unexpected ValueError: one two; --debug shows where",
    "raise MemoryError": "unexpected MemoryError; --debug shows where",
    "def f(): f()\nf()": "unexpected RecursionError: maximum recursion depth exceeded; --debug shows where",
    "class Panic(BaseException): pass\nraise Panic('of Rust')": "unexpected Panic: of Rust; --debug shows where",
    "'\\udce9'.encode()": "unexpected UnicodeEncodeError: 'utf-8' codec can't encode character",
    "open('no\\nfile')": r"no\nfile: No such file or directory",
    "import nowhere": "No module named 'nowhere'; activate the environment",
    "raise OSError('libx.so: cannot open')": "unexpected OSError: libx.so: cannot open; --debug shows where",
    "raise ConnectionError": "unexpected ConnectionError; --debug shows where",
    "from src.runtime.errors import InputError; raise InputError('wrong')": "wrong",
}


@pytest.mark.parametrize("body", FAULTS)
def test_every_exception_is_one_line_and_the_status_of_no_result(tmp_path, body):
    for failed, where in ((1, {"body": body}), (2, {"body": "pass", "imports": body})):
        output = run(tmp_path, failed=failed, **where)
        assert output.returncode == failed
        assert output.stderr.decode().startswith(f"error: {FAULTS[body]}") and output.stderr.count(b"\n") == 1
    shown = run(tmp_path, body, "a", "--debug").stderr.decode()
    assert shown.startswith("Traceback") and f"error: {FAULTS[body]}" in shown.splitlines()[-1]


def test_an_interrupt_is_130(tmp_path):
    body = f"import os; os.kill(os.getpid(), {int(signal.SIGINT)})"
    imports = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    output = run(tmp_path, body, imports=imports)
    assert output.returncode == 130 and output.stderr == b"interrupted\n"


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"\xe9 \u4e2d \udce9"),
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
    for text in ("'x'", "'x' * 100_000"):
        reading, writing = os.pipe()
        os.close(reading)
        output = run(tmp_path, f"print({text})", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        assert output.returncode == 2 and output.stderr == b"error: Broken pipe\n"
    with open("/dev/full", "wb") as full:
        assert run(tmp_path, "raise ValueError", capture_output=False, stdout=full, stderr=full).returncode == 2


def test_every_command_comes_in_this_way():
    """Before its imports, so that one that fails is reported too."""
    paths = [*ROOT.glob("src/*.py"), *ROOT.glob("bench/__main__.py"), *ROOT.glob("bench/op_profile.py")]
    commands = [path for path in paths if "__main__" in path.read_text() and path.name != "__init__.py"]
    assert len(commands) >= 13
    for path in commands:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        start = rf'""".*?"""\n\nif __name__ == "__main__":\n(    import sys\n\n)?    from src.common.command import command\n\n    command\("{re.escape(name)}"'
        assert re.match(start, path.read_text(), re.DOTALL), path
