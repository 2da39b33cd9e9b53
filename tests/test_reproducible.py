"""The same commit, parameters and seed give the same bytes, on one thread or two; timings apart."""

import pytest

from tests.workspace import SMALL, STAGES, run_all, workspace

TIMED = {"latency.json", "report.md", "report.html"}


def made(folder):
    """{path: bytes} of all that the stages left, without what holds timings."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for top in ("data", "models", "metrics")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file() and path.name not in TIMED
    }


@pytest.mark.slow
def test_two_runs_leave_the_same_bytes_on_one_thread_or_two(tmp_path):
    runs = []
    for threads in ("1", "2"):
        folder = workspace(tmp_path / threads, SMALL)
        run_all(folder, *STAGES[1:-1], OMP_NUM_THREADS=threads)
        runs.append(made(folder))
    one, two = runs
    assert one.keys() == two.keys() and len(one) > 30
    assert [path for path in one if one[path] != two[path]] == []
