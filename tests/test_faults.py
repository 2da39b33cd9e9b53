"""What happens to a machine: a full disk, a folder that cannot be written to, a stage that is killed, two stages at
once. Nothing half-written stays under a final name, and the same command completes, with the same bytes."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.test_reproducible import made
from tests.workspace import ROOT, SMALL, run, run_all, workspace

# One for each way of writing: a folder of audio, an ONNX file with metrics, a study that outlives its stage.
STAGES = ("sample_data", "baseline", "qat_search")
KILLS = 2
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """{stage: (folder before it ran, folder after it ran, seconds that it took)}."""
    top, states = tmp_path_factory.mktemp("faults"), {}
    before = workspace(top / "begin", SMALL)
    for stage in STAGES:
        after, begun = shutil.copytree(before, top / stage), time.monotonic()
        run_all(after, stage)
        states[stage] = before, after, time.monotonic() - begun
        before = after
    return states


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


def assert_whole_or_absent(folder, after):
    """Every file under a final name is that of a run without faults."""
    whole = made(after)
    for path, content in made(folder).items():
        assert ".partial/" in path or whole.get(path) == content, path


def assert_complete(folder, after):
    assert made(folder) == made(after)
    assert [path for path in folder.rglob(".*") if path.name.endswith((".partial", ".before"))] == []


@pytest.mark.parametrize(("stage", "left"), [("sample_data", 100_000), ("qat_search", 500_000)])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(stage, left, states, disk):
    before, after, _ = states[stage]
    folder = shutil.copytree(before, disk / "run")
    with open(disk / "filler", "wb") as file:
        usage = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, usage.f_bavail * usage.f_frsize - left)
    output = run(folder, stage)
    assert output.returncode == 1 and output.stderr.startswith("error: "), output.stderr
    assert len(output.stderr.splitlines()) == 1
    assert "No space left on device" in output.stderr or "database or disk is full" in output.stderr, output.stderr
    assert_whole_or_absent(folder, after)
    (disk / "filler").unlink()
    run_all(folder, stage)
    assert_complete(folder, after)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_at_random_moments_completes_with_the_same_bytes(stage, states, tmp_path):
    before, after, seconds = states[stage]
    folder, rng, kills = shutil.copytree(before, tmp_path / "run"), np.random.default_rng(0), 0
    while kills < KILLS:
        process = subprocess.Popen(
            [sys.executable, "-m", f"src.{stage}"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            assert process.wait(rng.uniform(0.2, 1) * seconds) == 0
            seconds /= 2  # it goes on where it was, and so takes less time than before
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        assert_whole_or_absent(folder, after)
    run_all(folder, stage)
    assert_complete(folder, after)
