"""A pipeline pushed from one clone and pulled into another, by a remote on a folder and by one that speaks S3."""
import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml

from tests.workspace import ROOT, SMALL

STAGE = "sample_data"  # leaves files and a folder of files to push


def call(folder, program, *arguments, **env):
    """What a program prints in a folder; `dvc` and the stages run in the interpreter of the tests."""
    command = [sys.executable, "-m", "dvc"] if program == "dvc" else [program]
    output = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=600, env={
        **os.environ, "PATH": os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"])), **env})
    assert output.returncode == 0, output.stdout + output.stderr
    return output.stdout


def clone(source, folder):
    call(source, "git", "clone", "--quiet", str(source), str(folder))
    call(folder, "git", "config", "user.name", "test")
    call(folder, "git", "config", "user.email", "test@example.org")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A clone with the working tree's files, in which the stages ran on a small configuration, committed."""
    folder = tmp_path_factory.mktemp("remotes") / "ran"
    clone(ROOT, folder)
    for name in ("src", "dvc.yaml", "params.yaml", "metrics/.gitignore"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name, **({"dirs_exist_ok": True} if copy is shutil.copytree else {}))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in SMALL.items():
        params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "dvc.lock").unlink()  # of another run, whose outputs are not here
    printed = call(folder, "dvc", "repro", STAGE)
    assert f"Running stage '{STAGE}'" in printed
    return folder


@contextlib.contextmanager
def s3_server():
    """The URL of an S3 server on this machine, which keeps everything in memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).close()
                break
            assert server.poll() is None
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_what_one_clone_pushed_another_pulls_and_runs_nothing(kind, ran, tmp_path):
    missing = [name for name in ("dvc_s3", "moto", "flask_cors", "boto3") if importlib.util.find_spec(name) is None]
    if kind == "s3" and missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install -r requirements-dev.txt")
    with contextlib.ExitStack() as stack:
        env, url, options = {}, str(tmp_path / "storage"), {}
        if kind == "s3":
            endpoint = stack.enter_context(s3_server())
            env = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
            make_bucket = ("import boto3, sys; "
                           "boto3.client('s3', endpoint_url=sys.argv[1]).create_bucket(Bucket='speaker')")
            call(tmp_path, sys.executable, "-c", make_bucket, endpoint, **env)
            url, options = "s3://speaker/dvc", {"endpointurl": endpoint}
        first, second = tmp_path / "first", tmp_path / "second"
        shutil.copytree(ran, first, symlinks=True)
        call(first, "dvc", "remote", "add", "--default", "storage", url)
        for name, value in options.items():
            call(first, "dvc", "remote", "modify", "storage", name, value)
        call(first, "git", "add", "--all")
        call(first, "git", "commit", "--quiet", "--message", "Run")
        assert "pushed" in call(first, "dvc", "push", **env)

        clone(first, second)
        assert not (second / "data/audio").exists()
        call(second, "dvc", "pull", STAGE, **env)  # the other stages did not run
        for path in (first / "data/audio").iterdir():
            assert (second / "data/audio" / path.name).read_bytes() == path.read_bytes()
        printed = call(second, "dvc", "repro", STAGE, **env)
        assert "Running" not in printed
        assert all(f"Stage '{stage}' didn't change, skipping" in printed for stage in ("pretrain", STAGE))
        assert call(second, "git", "status", "--porcelain") == ""
