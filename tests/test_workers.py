"""Several workers on one study: the stage and a worker as processes, with a PostgreSQL server of the test's own."""

import csv
import os
import subprocess
import sys

import pytest

from src.search import study
from tests.workspace import PASSWORD, ROOT, SMALL, run_all, workspace

TRIALS = 4


@pytest.mark.slow
def test_a_worker_and_the_stage_share_the_trials_of_a_study(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    search = {**SMALL["qat_search"], "n_trials": TRIALS, "storage": server}
    folder = workspace(tmp_path / "run", {**SMALL, "qat_search": search})
    run_all(folder, "sample_data", "baseline")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "src.qat_search"]
    processes = [
        subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        for arguments in (["--worker"], [])
    ]
    for process in processes:
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
    (name,) = study.optuna.get_all_study_names(study.connect(server))
    complete = study.complete(study.open_study(name, server, None))
    workers = {trial.user_attrs[study.WORKER].rpartition(":")[2] for trial in complete}
    assert workers == {str(process.pid) for process in processes} and TRIALS <= len(complete) <= TRIALS + 1
    with open(folder / "metrics/trials.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["objective"]) for row in rows] == pytest.approx([trial.values[0] for trial in complete[:TRIALS]])
    assert (folder / "models/qat.onnx").stat().st_size > 0
