"""Many workers on one study: the stage and two workers as processes, with a PostgreSQL server of the test's own."""

import csv
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
from optuna.trial import TrialState

from src.search import study
from tests.workspace import PASSWORD, ROOT, SMALL, read, run, workspace

TRIALS = 6


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


def until(found, what, *alive):
    """What `what` finds, as soon as it finds something."""
    end = time.monotonic() + 400
    while not (result := found()):
        assert time.monotonic() < end, f"not seen: {what}"
        for process in alive:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    return result


def opened(url):
    """The study in the database, once the stage has begun it."""
    backend = study.connect(url)
    names = optuna.get_all_study_names(backend)
    return optuna.load_study(study_name=names[0], storage=backend) if names else None


def ran_by(trial, process):
    return trial.user_attrs.get(study.WORKER, "").endswith(f":{process.pid}")


def in_its_second_trial(found, process):
    """The number of the trial that a worker runs after one that it finished."""
    own = [trial for trial in found.get_trials(deepcopy=False) if ran_by(trial, process)]
    drawn = [trial.number for trial in own if trial.state == TrialState.RUNNING and len(trial.params) == 5]
    return drawn[0] if drawn and any(trial.state == TrialState.COMPLETE for trial in own) else None


def test_a_killed_worker_loses_no_finished_trial_and_its_running_one_is_given_to_another(prepared, server, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    processes = victim, other = start(prepared, "--worker"), start(prepared, "--worker")
    processes += (stage := start(prepared),)
    try:
        found = until(lambda: opened(server), "the study", *processes)
        killed = until(lambda: in_its_second_trial(found, victim), "a second trial", *processes)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        finished = [
            trial for trial in found.get_trials() if ran_by(trial, victim) and trial.state == TrialState.COMPLETE
        ]
        assert finished and found.trials[killed].state == TrialState.RUNNING
        outputs = {process: process.communicate(timeout=400)[0] for process in (stage, other)}
    finally:
        for process in processes:
            process.kill()
    for process, output in outputs.items():
        assert process.returncode == 0, output

    trials = found.get_trials()
    begun = {
        index: [trial for trial in trials if trial.user_attrs.get(study.INDEX) == index and trial.params]
        for index in range(TRIALS)
    }
    lost = trials[killed].user_attrs[study.INDEX]
    for index, attempts in begun.items():
        states = [trial.state.name for trial in attempts]
        assert states == (["FAIL", "COMPLETE"] if index == lost else ["COMPLETE"]), index
    first, second = begun[lost]
    assert first.number == killed and first.params == second.params and not ran_by(second, victim)
    for trial in finished:
        assert begun[trial.user_attrs[study.INDEX]] == [trial]
    with open(prepared / "metrics/trials.csv") as file:
        rows = {int(row["trial"]): row for row in csv.DictReader(file)}
    assert list(rows) == list(range(TRIALS)) and read(prepared, "qat_search")["n_trials"] == TRIALS
    for index, attempts in begun.items():
        assert float(rows[index]["objective"]) == pytest.approx(attempts[-1].values[0])
    assert (prepared / "models/qat.onnx").stat().st_size > 0


def test_a_wrong_password_is_one_line_and_is_not_shown(prepared, server):
    text = (prepared / "params.yaml").read_text()
    (prepared / "params.yaml").write_text(text.replace("me@", "me:not-this-one@"))
    for arguments in ((), ("--worker",)):
        process = start(prepared, *arguments)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 1 and len(output.splitlines()) == 1
        assert output.startswith("error: qat_search.storage: ") and "password authentication failed" in output
        assert "not-this-one" not in output and PASSWORD not in output
    (prepared / "params.yaml").write_text(text)
