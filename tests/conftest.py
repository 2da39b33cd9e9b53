import fcntl
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Before numpy and torch are loaded: beside other workers, their threads make small products a hundred times as slow.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from src.common.command import command
from tests.workspace import PASSWORD, SMALL, STAGES, free_port, run_all, workspace

# Those that take longest, so that no worker waits for the last. The first makes the pipeline, others that use it follow
# late: until it is made they would wait.
FIRST = (
    "test_stages",
    "search/test_search",
    "reporting/test_report",
    "quantize/test_networks",
    "publish/test_release",
    "common/test_hub",
    "test_demo",
    "test_link_data",
    "test_makefile",
    "encoder/test_export",
    "quantize/test_ptq",
    "test_remotes",
    "bench/test_bench",
)


def pytest_collection_modifyitems(items):
    order = {Path(__file__).parent / f"{name}.py": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def shared():
    """Folder with real speech (`speech`) and a stand-in for the hub (`hub`)."""
    folder = os.environ.get("SPEAKER_SHARED")
    if not folder:
        pytest.skip("SPEAKER_SHARED is not set: no real speech, no stand-in for the hub")
    return Path(folder)


@pytest.fixture
def called(monkeypatch, capsys):
    """Runs a command in this process. Gives its exit status, standard output and standard error."""

    def call(module, *arguments, failed=1):
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command(module, failed)
        return end.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """(a folder in which every stage ran on a small configuration, {stage: its standard error}): one for all workers."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top
    folder, errors = top / "pipeline", top / "pipeline.json"
    with open(top / "pipeline.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            from tests.encoder.helpers import SHALLOW, random_ecapa, saved

            encoder = saved(top / "encoder", SHALLOW, random_ecapa(SHALLOW, mild=True))
            small = {**SMALL, "encoder": {"source": str(encoder)}, "threads": 1}
            errors.write_text(json.dumps(run_all(workspace(folder, small), *STAGES)))
    assert errors.exists(), "the pipeline failed in the tests before"
    return folder, json.loads(errors.read_text())


def program(name):
    """initdb and pg_ctl are often not on the PATH."""
    found = shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    return found or pytest.skip(f"{name} is not installed: no PostgreSQL server to test with")


def unprivileged():
    """The arguments of subprocess.run that run a program as a user other than root: PostgreSQL refuses root."""
    if os.geteuid():
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


@pytest.fixture(scope="module")
def server():
    """The URL, without the password, of a database of a new PostgreSQL server."""
    initdb, pg_ctl, user = program("initdb"), program("pg_ctl"), unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # pytest's folders are closed to other users
    data, secret = folder / "data", folder / "password"
    secret.write_text(PASSWORD)
    if user:
        for path in (folder, secret):
            os.chown(path, user["user"], user["group"])
    port = free_port()

    def call(*command):
        output = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, **user
        )
        assert output.returncode == 0, output.stdout

    try:
        call(initdb, "-D", data, "-U", "me", "-A", "scram-sha-256", "--pwfile", secret, "--no-sync")
        call(pg_ctl, "-D", data, "-l", folder / "log", "-w", "-o", f"-p {port} -k {folder} -c fsync=off", "start")
        yield f"postgresql://me@127.0.0.1:{port}/postgres"
    finally:
        if (data / "postmaster.pid").exists():
            call(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)
