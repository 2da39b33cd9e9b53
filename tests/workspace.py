"""Folders and clones in which the project is run as a user runs it, on a small configuration of the real thing."""

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import yaml

from src.common import layout

ROOT = Path(__file__).parent.parent
STAGES = ("link_data", "sample_data", "baseline", "profile", "ptq", "qat_search", "breakdown", "report", "release")
PASSWORD = "kept-to-itself"  # of the PostgreSQL server of the tests
SMALL = {
    "data": {"speakers": 16, "utterances_per_speaker": 4, "max_seconds": 3.0},
    "evaluate": {"bootstrap": 100},
    "profile": {"rounds": 3},
    "ptq": {"utterances": 6},
    "qat_search": {"n_trials": 2, "steps": 2, "final_steps": 2, "crop_seconds": 0.5, "batch_size": [4]},
    "breakdown": {"seconds": [1.0], "snr": [5], "channels": ["gsm"], "utterances": 2},
}


def workspace(folder, changes):
    """A folder in which stages run: params.yaml with changes, the shipped encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "params.yaml", folder)
    change_parameters(folder, changes)
    shutil.copytree(ROOT / "models/pretrained", folder / "models/pretrained")
    return folder


def change_parameters(folder, changes):
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] = {**params[section], **values} if isinstance(values, dict) else values
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def interpreter_first():
    """The environment in which what DVC calls `python` is the interpreter of the tests."""
    return {**os.environ, "PATH": os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))}


@contextlib.contextmanager
def small_files(size):
    """Files may have `size` bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def call(folder, program, *arguments, **env):
    """What a program prints in a folder; `dvc` and the stages run in the interpreter of the tests."""
    command = [sys.executable, "-m", "dvc"] if program == "dvc" else [program]
    output = subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=600, env=interpreter_first() | env
    )
    assert output.returncode == 0, output.stdout + output.stderr
    return output.stdout


def clone(source, folder):
    call(source, "git", "clone", "--quiet", str(source), str(folder))
    call(folder, "git", "config", "user.name", "test")
    call(folder, "git", "config", "user.email", "test@example.org")


def commit(folder, message):
    call(folder, "git", "add", "--all")
    call(folder, "git", "commit", "--quiet", "--message", message)


def small_clone(folder):
    """A clone with the working tree's files and the small configuration, committed, and `.venv` made of links.

    What tells make that the environment is installed is the clone's own: the one of the tests is never changed.
    """
    clone(ROOT, folder)
    files = call(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    change_parameters(folder, SMALL)
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith("installed"):
            (folder / ".venv" / path.name).symlink_to(path)
    for name in ("installed", "installed-dev", "installed-bench"):
        (folder / ".venv" / name).touch()
    commit(folder, "Small configuration")
    return folder


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def served(command, url, **options):
    """A server as a process, from when it answers at `url`."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=5).close()
                break
            assert server.poll() is None, f"{command} ended"
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def s3_server():
    """`served`: an S3 server on this machine, which keeps everything in memory."""
    port = free_port()
    return served([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], f"http://127.0.0.1:{port}")


def python(folder, *arguments, before=(), **env):
    """The interpreter of the tests in a folder, with the project on its path. before: a program that runs it."""
    return subprocess.run(
        [*before, sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


def run(folder, stage, *arguments, **options):
    return python(folder, "-m", f"src.{stage}", *arguments, **options)


def run_all(folder, *stages, **options):
    """Run stages, none of which fails. Gives {stage: its standard error}."""
    errors = {}
    for stage in stages:
        output = run(folder, stage, **options)
        assert output.returncode == 0, output.stderr
        errors[stage] = output.stderr
    return errors


def hub_program(shared, root=None):
    """The stand-in for the hub, as a program that runs another beside it."""
    return (sys.executable, shared / "hub/serve.py", root or shared / "hub/root")


def read(folder, stage):
    """Everything that a stage measured."""
    return json.loads((folder / layout.details(stage)).read_text())


def programs(document):
    """The Python blocks of a Markdown file of the repository."""
    return [part.split("```")[0] for part in (ROOT / document).read_text().split("```python\n")[1:]]


def recomputed(program, folder):
    """What a program of docs/evaluation.md prints in a folder: {model: [its figures]}."""
    output = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert output.returncode == 0 and not output.stderr, output.stderr
    lines = [line.split() for line in output.stdout.splitlines()]
    return {Path(path).stem: [float(number) for number in numbers] for path, *numbers in lines}
