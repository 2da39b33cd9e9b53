"""What happens to a machine: stages that are killed, a full disk, a folder that cannot be written to, two runs at
once. Nothing half-written stays under a final name, and the same command completes, with the same bytes."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from src.search import study
from tests.test_reproducible import made
from tests.workspace import ROOT, SMALL, call, change_parameters, commit, interpreter_first, run, small_clone, workspace

PIPELINE = {
    name: stage
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
    if not stage.get("frozen")
}
TRIALS, KILLS = 3, {"qat_search": 4}  # random kills of a stage, 2 of the others


def outputs(stage):
    """The paths that a stage leaves, as dvc.yaml lists them."""
    listed = [entry for kind in ("outs", "metrics", "plots") for entry in PIPELINE[stage].get(kind, ())]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in listed]


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def atomic_write(tmp_path_factory):
    """A folder in which every stage has run."""
    folder = workspace(tmp_path_factory.mktemp("faults") / "whole", SMALL)
    for stage in PIPELINE:
        output = run(folder, stage)
        assert output.returncode == 0, output.stderr
    return folder


@pytest.fixture
def disk(tmp_path):
    """A file system of its own of 24 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk, left):
    """Leave so many bytes on it."""
    with open(disk / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - left)


def assert_whole_or_absent(folder, stage, whole):
    """Every file under the name of an output is that of a run without faults, and no other file was left."""
    known = made(whole)
    for path, content in made(folder).items():
        assert known.get(path) == content, path
    for path in outputs(stage):
        if path.endswith("latency.json") and (folder / path).exists():
            assert json.loads((folder / path).read_text())
    assert [path for path in folder.rglob(".*") if path.name.endswith((".partial", ".before"))] == []


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 100_000])
@pytest.mark.parametrize("stage", PIPELINE)
def test_a_full_disk_is_told_in_one_line_and_leaves_nothing_half_written(stage, left, whole, disk):
    folder = shutil.copytree(whole, disk / "run", ignore=shutil.ignore_patterns(".optuna"))
    for path in outputs(stage):
        remove(folder / path)
    fill(disk, left)
    output = run(folder, stage)
    assert_whole_or_absent(folder, stage, whole)
    if output.returncode:
        assert output.stderr.startswith("error: ") and len(output.stderr.splitlines()) == 1, output.stderr
        assert "No space left on device" in output.stderr
        (disk / "filler").unlink()
        output = run(folder, stage)
        assert output.returncode == 0, output.stderr
        assert_whole_or_absent(folder, stage, whole)
    else:
        assert left
    assert made(folder) == made(whole)


@pytest.mark.slow
@pytest.mark.parametrize("stage", PIPELINE)
def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(stage, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns(".optuna"))
    for path in outputs(stage):
        remove(folder / path)
    places = {(folder / path).parent for path in outputs(stage)}
    for place in places:
        place.chmod(0o555)
    # Root writes where it may not: without its capabilities it is as anybody else.
    plain = [] if os.geteuid() else ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    before = made(folder)
    output = subprocess.run(
        [*plain, sys.executable, "-m", f"src.{stage}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for place in places:
        place.chmod(0o755)
    assert output.returncode == 1 and "Permission denied" in output.stderr
    assert output.stderr.startswith("error: ") and len(output.stderr.splitlines()) == 1, output.stderr
    assert made(folder) == before


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A clone in which `dvc repro` ran, and how many seconds each stage took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "clone"
    copy(folder)
    seconds = {}
    for stage in PIPELINE:
        begun = time.monotonic()
        call(folder, "dvc", "repro", "--single-item", stage)
        seconds[stage] = time.monotonic() - begun
    return folder, seconds


def copy(folder):
    """A clone with a small configuration and some more trials, committed."""
    small_clone(folder)
    change_parameters(folder, {"qat_search": {"n_trials": TRIALS, "final_steps": 4}})
    (folder / "dvc.lock").unlink()  # of another configuration
    commit(folder, "More trials")


def repro(folder, log, *arguments):
    """`dvc repro` in a process group of its own."""
    with open(log, "w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", *arguments],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=interpreter_first(),
        )


def kill(folder, stage, log, delay, alone):
    """Kill DVC and the stage, or with `alone` DVC only, `delay` seconds after DVC began the stage; whether it had not
    ended before."""
    process, end = repro(folder, log, "--single-item", "--force", stage), time.monotonic() + 300
    while f"Running stage '{stage}'" not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.02)
    time.sleep(delay)
    if process.poll() is not None:
        return False
    (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    process.wait()
    return True


def complete(folder):
    """{index: values} of the finished trials, each of which ran once."""
    found = {}
    for path in (folder / ".optuna").glob("*.log"):
        storage = JournalStorage(JournalFileBackend(str(path)))
        for trial in optuna.load_study(study_name=path.stem, storage=storage).get_trials(states=(TrialState.COMPLETE,)):
            index = trial.user_attrs[study.INDEX]
            assert index not in found, f"trial {index} ran twice"
            found[index] = trial.values
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_stages_killed_at_random_moments_complete_with_the_same_bytes(seed, undisturbed, tmp_path):
    """Of DVC and the stage both are killed, or DVC alone, whose stage then goes on by itself."""
    (other, seconds), rng = undisturbed, np.random.default_rng(seed)
    folder, log = tmp_path / "clone", tmp_path / "log"
    copy(folder)
    kills, finished = 0, {}
    for stage in PIPELINE:
        delay = seconds[stage]
        for turn in range(KILLS.get(stage, 2)):
            while not kill(folder, stage, log, rng.uniform(0, delay), alone=turn % 2):
                delay /= 2
            kills += 1
            now = complete(folder)
            assert now.items() >= finished.items()
            finished = now
        call(folder, "dvc", "repro", stage)
    assert made(folder) == made(other)
    assert complete(folder) == complete(other) and len(complete(folder)) == TRIALS
    assert [path for path in folder.rglob(".*") if path.name.endswith((".partial", ".before"))] == []
    assert "Running" not in call(folder, "dvc", "repro")
    print(f"{kills} kills")


@pytest.mark.slow
def test_of_two_runs_at_once_the_second_waits_or_says_so(undisturbed, tmp_path):
    folder, logs = tmp_path / "clone", [tmp_path / "first", tmp_path / "second"]
    copy(folder)
    processes = [repro(folder, log) for log in logs]
    codes = [process.wait(timeout=600) for process in processes]
    assert 0 in codes, [log.read_text() for log in logs]
    for code, log in zip(codes, logs):
        said = log.read_text()
        assert "Traceback" not in said
        assert code == 0 or "busy" in said or "Unable to acquire lock" in said, said
    call(folder, "dvc", "repro")
    assert made(folder) == made(undisturbed[0])


def test_a_stage_waits_for_another_in_the_same_folder(tmp_path):
    folder = workspace(tmp_path / "run", SMALL)
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    process = subprocess.Popen(
        [sys.executable, "-m", "src.sample_data"],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    said = process.stderr.readline()
    assert said == f"waiting for another stage that runs in {folder}\n"
    assert process.poll() is None and not (folder / "data").exists()
    os.close(other)
    assert process.communicate(timeout=300)[1] == "" and process.returncode == 0
    assert (folder / "data/manifest.csv").is_file()
