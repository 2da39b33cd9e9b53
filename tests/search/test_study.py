import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
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


def values(trial):
    x = trial.suggest_float("x", 0, 1)
    trial.set_user_attr("seen", x)
    return x, 1 - x, 0.0


def complete_all(found, wanted, run=values, alone=False):
    study.work(found, wanted, run, lambda index: RandomSampler(seed=index), alone)


def done(found, wanted):
    return [trial.user_attrs[study.INDEX] for trial in study.complete(found, wanted)]


def running(found, index, started=True):
    """The number of a trial that another worker has begun, and whose heartbeat is never heard."""
    found.enqueue_trial({}, user_attrs={study.INDEX: index})
    trial = found.ask()
    if started:
        trial.suggest_float("x", 0, 1)
    return trial.number


def test_alone_trials_are_run_in_order_and_an_interrupted_one_is_never_given_up(tmp_path):
    indices = []

    def interrupted(trial):
        indices.append(trial.user_attrs[study.INDEX])
        if indices.count(1) in range(1, study.RETRIES + 3) and indices[-1] == 1:
            raise KeyboardInterrupt
        return values(trial)

    for _ in range(study.RETRIES + 2):
        with pytest.raises(KeyboardInterrupt):
            complete_all(study.open_study("a", None, tmp_path), 3, interrupted, alone=True)
    found = study.open_study("a", None, tmp_path)
    complete_all(found, 3, interrupted, alone=True)
    assert indices == [0] + [1] * (study.RETRIES + 3) + [2] and done(found, 3) == [0, 1, 2]


def test_a_file_whose_worker_was_killed_is_opened_and_goes_on(tmp_path):
    found = study.open_study("a", None, tmp_path)
    complete_all(found, 1, alone=True)
    running(found, 1)
    again = study.open_study("a", None, tmp_path)
    complete_all(again, 2, alone=True)
    assert done(again, 2) == [0, 1] and study.complete(again, 2)[0].params == study.complete(found, 1)[0].params


@pytest.mark.parametrize("torn", [b"", b'{"op_code":4,"worker_', b"\x00\x00\x00"])
def test_a_file_that_a_worker_left_half_written_goes_on(tmp_path, torn):
    found = study.open_study("a", None, tmp_path)
    complete_all(found, 2, alone=True)
    before = [trial.values for trial in found.trials]
    with open(tmp_path / "a.log", "ab") as file:
        file.write(torn)
    (tmp_path / "a.log.lock").symlink_to(tmp_path / "a.log")
    again = study.open_study("a", None, tmp_path)
    complete_all(again, 3, alone=True)
    assert [trial.values for trial in again.trials[:2]] == before
    assert done(study.open_study("a", None, tmp_path), 3) == [0, 1, 2]


def test_a_file_that_cannot_be_written_is_told_in_one_line(tmp_path):
    found = study.open_study("a", None, tmp_path)

    with contextlib.ExitStack() as limited:

        def full(trial):
            limited.enter_context(small_files((tmp_path / "a.log").stat().st_size + 10))
            return values(trial)

        with pytest.raises(InputError, match="a.log: cannot be written: File too large; the same command goes on"):
            complete_all(found, 2, full, alone=True)
    again = study.open_study("a", None, tmp_path)
    complete_all(again, 2, alone=True)
    assert done(again, 2) == [0, 1]


def test_many_workers_run_each_trial_once_and_draw_different_parameters(server, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    ran = []

    def worker():
        complete_all(study.open_study("a", server, None), 8, counted)

    def counted(trial):
        ran.append(trial.user_attrs[study.INDEX])
        time.sleep(0.05)
        return values(trial)

    with ThreadPoolExecutor(3) as pool:
        for ended in [pool.submit(worker) for _ in range(3)]:
            ended.result()
    found = study.open_study("a", server, None)
    assert sorted(ran) == done(found, 8) == list(range(8)), found.trials_dataframe()
    assert len({trial.params["x"] for trial in study.complete(found, 8)}) == 8


def test_of_two_trials_of_one_index_one_is_run(database, quick):
    found, ran = study.open_study("a", database, None), []
    for index in (0, 0, 1):
        found.enqueue_trial({}, user_attrs={study.INDEX: index})
    complete_all(found, 3, lambda trial: ran.append(trial.user_attrs[study.INDEX]) or values(trial))
    assert ran == [0, 1, 2] and done(found, 3) == [0, 1, 2]


def test_a_failed_trial_is_run_again_with_its_parameters(database, quick):
    found = study.open_study("a", database, None)

    def broken(trial):
        values(trial)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        complete_all(found, 2, broken)
    (failed,) = found.get_trials(states=(TrialState.FAIL,))
    study.work(found, 2, values, lambda index: RandomSampler(seed=9), alone=False)
    assert study.complete(found, 2)[0].params == failed.params


@pytest.mark.filterwarnings("ignore:Heartbeat")
def test_a_worker_that_died_before_its_first_heartbeat_is_replaced(database, quick):
    found = study.open_study("a", database, None)
    number = running(found, 0, started=False)
    complete_all(found, 1)
    assert found.trials[number].state == TrialState.FAIL and done(found, 1) == [0]


def test_a_worker_that_was_given_up_goes_on_with_other_trials(database, quick, capsys):
    found = study.open_study("a", database, None)

    def slept(trial):
        if trial.number == 0:
            trial.suggest_float("x", 0, 1)
            found.tell(0, state=TrialState.FAIL)  # as another worker does
        return values(trial)

    complete_all(found, 2, slept)
    assert done(found, 2) == [0, 1] and "trial 1 was given to another worker" in capsys.readouterr().out
    assert [trial.state.name for trial in found.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_trial_that_always_fails_is_given_up_and_may_be_tried_again_by_hand(database, quick):
    found = study.open_study("a", database, None)

    def others_fail(trial):
        for _ in range(study.RETRIES + 1):
            found.add_trial(optuna.create_trial(state=TrialState.FAIL, user_attrs={study.INDEX: 1}))
        return values(trial)

    with pytest.raises(InputError, match="trial 2 failed 4 times"):
        complete_all(found, 2, others_fail)
    complete_all(found, 2)
    assert done(found, 2) == [0, 1]


def test_a_worker_with_more_trials_does_not_take_the_place_of_those_wanted(database, quick):
    found = study.open_study("a", database, None)
    for index in (3, 1, 0):
        found.enqueue_trial({}, user_attrs={study.INDEX: index})
    complete_all(found, 3)
    assert done(found, 3) == [0, 1, 2] and done(found, 4) == [0, 1, 2, 3]


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
        ("postgresql+psycopg://me:secret@127.0.0.1:1/name?sslmode=require", "port 1 failed: Connection refused"),
        (" postgres://127.0.0.1:1/name?user=me&password=secret\n", "port 1 failed: Connection refused"),
        ("postgresql://me@127.0.0.1:1/name?pgbouncer=true&password=secret", 'invalid connection option "pgbouncer"'),
        ("oracle://me:secret@host/name", "No module named"),
        ("postgresql://me:secret@127.0.0.1:1/name", "port 1 failed: Connection refused"),
        ("postgresql://me:{secret}@127.0.0.1:1/name", "port 1 failed: Connection refused"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_line_without_the_password(url, said):
    with pytest.raises(InputError) as caught:
        study.connect(url)
    message = str(caught.value)
    assert message.startswith("qat_search.storage: ") and said in message
    assert "secret" not in message and "\n" not in message


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of the heartbeat
def test_a_database_that_is_lost_is_told_in_one_line(database, quick, tmp_path):
    def lost(trial):
        (tmp_path / "study.db").unlink()
        return values(trial)

    with pytest.raises(InputError, match="the same command goes on"):
        complete_all(study.open_study("a", database, None), 2, lost)
