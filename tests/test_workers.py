"""Many workers on one study: the stage and two workers as processes, with a PostgreSQL server of the test's own."""

import csv
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from src.search import study
from tests.workspace import PASSWORD, ROOT, SMALL, run, workspace

TRIALS = 8


@pytest.fixture(scope="module")
def prepared(server, tmp_path_factory):
    """A folder with the data and the baseline, whose search is kept in the server."""
    search = {**SMALL["qat_search"], "n_trials": TRIALS, "storage": server}
    folder = workspace(tmp_path_factory.mktemp("workers") / "run", {**SMALL, "qat_search": search})
    for stage in ("sample_data", "baseline"):
        output = run(folder, stage)
        assert output.returncode == 0, output.stderr
    return folder


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "src.qat_search", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PGPASSWORD": PASSWORD, "OMP_NUM_THREADS": "1"},
    )


def until(look, description, *alive):
    """What `look` gives, as soon as it gives something."""
    end = time.monotonic() + 900
    while not (seen := look()):
        assert time.monotonic() < end, f"not seen: {description}"
        for process in alive:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    return seen


def opened(url):
    """The study in the database, once the stage has begun it."""
    backend = study.connect(url)
    names = optuna.get_all_study_names(backend)
    return optuna.load_study(study_name=names[0], storage=backend) if names else None


def ran_by(trial, process):
    return trial.user_attrs.get(study.WORKER, "").endswith(f":{process.pid}")


def in_its_second_trial(search, process):
    """The trial that a worker runs after one that it finished, once it has drawn all of its parameters."""
    trials = [trial for trial in search.get_trials() if ran_by(trial, process)]
    running = [trial for trial in trials if trial.state == TrialState.RUNNING and len(trial.params) == 5]
    return running[0] if running and any(trial.state == TrialState.COMPLETE for trial in trials) else None


def silence(url, trial):
    """Make the last heartbeat of a trial an hour older, so that nobody has to wait for the time of grace."""
    older = "UPDATE trial_heartbeats SET heartbeat = heartbeat - INTERVAL '1 hour' WHERE trial_id = :trial"
    with study.connect(url).engine.begin() as connection:
        connection.execute(sqlalchemy.text(older), {"trial": trial._trial_id})


@pytest.mark.slow
def test_a_killed_worker_loses_no_finished_trial_and_its_running_one_is_given_to_another(prepared, server, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    processes = victim, other = start(prepared, "--worker"), start(prepared, "--worker")
    processes += (stage := start(prepared),)
    try:
        search = until(lambda: opened(server), "the study", *processes)
        lost = until(lambda: in_its_second_trial(search, victim), "a second trial", *processes)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        silence(server, lost)
        before = [trial for trial in search.get_trials() if trial.state == TrialState.COMPLETE]
        outputs = {process: process.communicate(timeout=900)[0] for process in (stage, other)}
    finally:
        for process in processes:
            process.kill()
    for process, output in outputs.items():
        assert process.returncode == 0, output

    after = search.get_trials()
    assert [after[trial.number] for trial in before] == before
    # Two workers are left, each of which ends after the trial that it runs.
    complete = study.complete(search)
    assert TRIALS <= len(complete) <= TRIALS + 1
    (again,) = [trial for trial in after if trial.params == lost.params and trial.number != lost.number]
    assert after[lost.number].state == TrialState.FAIL and again.state == TrialState.COMPLETE
    assert not ran_by(again, victim)
    with open(prepared / "metrics/trials.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(TRIALS)) == list(range(len(rows)))
    for row, trial in zip(rows, complete):
        assert float(row["objective"]) == pytest.approx(trial.values[0])
    assert (prepared / "models/qat.onnx").stat().st_size > 0
