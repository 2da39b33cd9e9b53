"""A pipeline pushed from one clone and pulled into another, by a remote on a folder and by one that speaks S3."""

import contextlib
import importlib.util
import shutil
import sys

import pytest

from tests.workspace import call, clone, commit, s3_server, small_clone

STAGE = "sample_data"  # leaves files and a folder of files to push


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A clone with the working tree's files, in which the stages ran on a small configuration, committed."""
    folder = tmp_path_factory.mktemp("remotes") / "ran"
    small_clone(folder)
    (folder / "dvc.lock").unlink()  # of another run, whose outputs are not here
    printed = call(folder, "dvc", "repro", STAGE)
    assert f"Running stage '{STAGE}'" in printed
    return folder


@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=pytest.mark.slow)])
def test_what_one_clone_pushed_another_pulls_and_runs_only_the_links(kind, ran, tmp_path):
    missing = [name for name in ("dvc_s3", "moto", "flask_cors", "boto3") if importlib.util.find_spec(name) is None]
    if kind == "s3" and missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install -r requirements-dev.txt")
    with contextlib.ExitStack() as stack:
        env, url, options = {}, str(tmp_path / "storage"), {}
        if kind == "s3":
            endpoint = stack.enter_context(s3_server())
            env = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
            make_bucket = (
                "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1]).create_bucket(Bucket='speaker')"
            )
            call(tmp_path, sys.executable, "-c", make_bucket, endpoint, **env)
            url, options = "s3://speaker/dvc", {"endpointurl": endpoint}
        first, second = tmp_path / "first", tmp_path / "second"
        shutil.copytree(ran, first, symlinks=True)
        call(first, "dvc", "remote", "add", "--default", "storage", url)
        for name, value in options.items():
            call(first, "dvc", "remote", "modify", "storage", name, value)
        commit(first, "Run")
        assert "pushed" in call(first, "dvc", "push", **env)

        clone(first, second)
        assert not (second / "data/audio").exists()
        call(second, "dvc", "pull", STAGE, **env)  # the other stages did not run
        for path in (first / "data/audio").iterdir():
            assert (second / "data/audio" / path.name).read_bytes() == path.read_bytes()
        printed = call(second, "dvc", "repro", STAGE, **env)
        # Links are made anew on every machine.
        assert [line for line in printed.splitlines() if "Running" in line] == ["Running stage 'link_data':"]
        assert f"Stage '{STAGE}' didn't change, skipping" in printed
        assert call(second, "git", "status", "--porcelain") == ""
