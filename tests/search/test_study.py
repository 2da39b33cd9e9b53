import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from src.runtime.errors import InputError
from src.search import study
from tests.workspace import PASSWORD, small_files


@pytest.fixture
def quick(monkeypatch):
    for name, seconds in (("HEARTBEAT", 1), ("GRACE", 2), ("WAIT", 0.1)):
        monkeypatch.setattr(study, name, seconds)


@pytest.fixture
def database(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


def objective(trial, _number=None):
    x = trial.suggest_float("x", 0, 1)
    trial.set_user_attr("seen", x)
    return x, 1 - x, 0.0


def run(opened, n_trials, objective=objective, shared=False):
    study.run_trials(opened, n_trials, objective, lambda number: RandomSampler(seed=number), shared)


def parameters(opened, n_trials=None):
    return [trial.params["x"] for trial in study.complete(opened, n_trials)]


def interrupting(at):
    """An objective that is interrupted in its `at`-th call, after it drew its parameters; the calls so far."""
    calls = []

    def interrupted(trial, _number):
        calls.append(trial.suggest_float("x", 0, 1))
        if len(calls) == at:
            raise KeyboardInterrupt
        return objective(trial)

    return interrupted, calls


def test_an_interrupted_search_draws_what_an_undisturbed_one_does_and_runs_no_finished_trial_again(tmp_path):
    run(undisturbed := study.open_study("a", None, tmp_path / "undisturbed"), 4)
    for at in (1, 3):
        interrupted, calls = interrupting(at)
        for _ in range(2):  # interrupted at the same trial twice
            with pytest.raises(KeyboardInterrupt):
                run(study.open_study("a", None, tmp_path / str(at)), 4, interrupted)
            del calls[at - 1 :]
        run(again := study.open_study("a", None, tmp_path / str(at)), 4)
        assert parameters(again) == parameters(undisturbed)
        assert calls == parameters(undisturbed)[: at - 1]


def test_a_file_whose_worker_was_killed_goes_on_with_the_same_parameters(tmp_path):
    run(undisturbed := study.open_study("a", None, tmp_path / "undisturbed"), 2)
    killed = study.open_study("a", None, tmp_path)
    run(killed, 1)
    killed.ask().suggest_float("x", 0, 1)  # and never told
    run(again := study.open_study("a", None, tmp_path), 2)
    assert parameters(again) == parameters(undisturbed)
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_a_larger_number_of_trials_adds_to_them_and_a_smaller_one_takes_the_first(tmp_path, capsys):
    run(study.open_study("a", None, tmp_path), 2)
    first = parameters(study.open_study("a", None, tmp_path))
    assert capsys.readouterr().out == ""
    run(again := study.open_study("a", None, tmp_path), 3)
    assert capsys.readouterr().out == "2 of 3 trials were finished before\n"
    assert parameters(again, 2) == first and len(set(parameters(again))) == 3
    run(again, 2)
    assert len(again.trials) == 3


def test_a_full_disk_is_one_line_and_the_search_goes_on_afterwards(tmp_path):
    run(undisturbed := study.open_study("a", None, tmp_path / "undisturbed"), 3)
    opened = study.open_study("a", None, tmp_path)
    run(opened, 1)
    with contextlib.ExitStack() as limited:

        def full(trial, _number):
            limited.enter_context(small_files(1000))
            return objective(trial)

        with pytest.raises(InputError, match=r"^a\.db: .+; the same command goes on where this stopped$"):
            run(opened, 3, full)
    run(again := study.open_study("a", None, tmp_path), 3)
    assert parameters(again) == parameters(undisturbed)


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\x00" + bytes(4000))
    with pytest.raises(InputError, match=r"^a\.db: [^\n]+$"):
        run(study.open_study("a", None, tmp_path), 1)


def test_many_workers_draw_different_parameters_and_run_few_more_trials_than_asked_for(server, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    numbers, workers = [], 3

    def worker():
        run(study.open_study("a", server, None), 8, counted, shared=True)

    def counted(trial, number):
        numbers.append(number)
        time.sleep(0.05)
        return objective(trial)

    with ThreadPoolExecutor(workers) as pool:
        for ended in [pool.submit(worker) for _ in range(workers)]:
            ended.result()
    opened = study.open_study("a", server, None)
    assert sorted(numbers) == list(range(len(numbers))), opened.trials_dataframe()
    assert 8 <= len(numbers) <= 8 + workers - 1
    assert len(set(parameters(opened))) == len(numbers) and len(parameters(opened, 8)) == 8


@pytest.mark.filterwarnings("ignore:Heartbeat")
def test_the_trial_of_a_dead_worker_is_run_again_with_its_parameters(database, quick):
    opened = study.open_study("a", database, None)
    dead = opened.ask()
    drawn = dead.suggest_float("x", 0, 1)
    opened._storage.record_heartbeat(dead._trial_id)  # its last
    time.sleep(study.GRACE + 1.5)
    opened.ask()  # by one that died before its first heartbeat: it holds nobody up
    run(opened, 2, shared=True)
    assert parameters(opened)[0] == drawn and opened.trials[dead.number].state == TrialState.FAIL
    assert len(set(parameters(opened))) == 2


def test_a_worker_that_was_given_up_goes_on_with_other_trials(database, quick, capsys):
    opened = study.open_study("a", database, None)

    def slept(trial, _number):
        if trial.number == 0:
            trial.suggest_float("x", 0, 1)
            opened.tell(0, state=TrialState.FAIL)  # as another worker does
        return objective(trial)

    run(opened, 2, slept, shared=True)
    assert "a trial was given to another worker" in capsys.readouterr().out
    assert [trial.state.name for trial in opened.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_trial_that_fails_ends_its_worker_and_the_others_go_on(database, quick):
    opened = study.open_study("a", database, None)

    def broken(trial, _number):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(opened, 2, broken, shared=True)
    run(opened, 2, shared=True)
    assert [trial.state.name for trial in opened.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_worker_waits_for_the_study(database, quick, capsys):
    opened = []
    worker = threading.Thread(target=lambda: opened.append(study.open_study("a", database, None, wait=True)))
    worker.start()
    study.open_study("b", database, None)
    said, end = "", time.monotonic() + 60
    while "waiting for the stage to begin study a" not in said and time.monotonic() < end:
        worker.join(0.1)
        said += capsys.readouterr().out
    assert worker.is_alive() and not opened and "waiting for the stage to begin study a" in said
    study.open_study("a", database, None)
    worker.join(30)
    assert opened[0].study_name == "a"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("secret", "not a database URL"),
        ("postgresql://me:secret@host:port/name", "not a database URL"),
        ("mysql+nosuch://me:secret@host/name", "mysql.nosuch"),
        ("postgres://me:secret@127.0.0.1:1/name", "port 1 failed: Connection refused"),
        (" postgres://127.0.0.1:1/name?user=me&password=secret\n", "port 1 failed: Connection refused"),
        ("oracle://me:secret@host/name", "No module named"),
        ("postgresql://me:{secret}@127.0.0.1:1/name", "port 1 failed: Connection refused"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_without_the_password(url, said):
    with pytest.raises(InputError) as caught:
        study.connect(url)
    message = str(caught.value)
    assert message.startswith("qat_search.storage: ") and said in message
    assert "secret" not in message and "\n" not in message


def test_a_wrong_password_is_one_line_and_is_not_shown(server):
    with pytest.raises(InputError, match="^qat_search.storage: .*password authentication failed") as caught:
        study.connect(server.replace("me@", "me:not-this-one@"))
    assert "not-this-one" not in str(caught.value) and "\n" not in str(caught.value)
