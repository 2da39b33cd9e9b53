"""An Optuna study that outlives its workers: a file for one worker, whose search repeats exactly, or a database for many.

Optuna does the queueing: heartbeats of running trials, and the retry of one whose worker died.
"""

import contextlib
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from src.runtime.errors import InputError, one_line

WORKER = "worker"  # of a trial: host and process that ran it
DIRECTIONS = ("minimize", "minimize", "minimize")  # validation objective, GMACs, megabytes
# Seconds: a worker reports, and its trial is given to another when it has not for so long. Six reports may be late
# or lost before a trial is run twice for nothing; a dead worker's trial, of minutes or hours, waits half a minute.
HEARTBEAT, GRACE = 5, 30
RETRIES = 3  # of a trial whose worker died, before another takes its place
WAIT = 1  # seconds between two looks for the study
# What a database says to all but one of those that make the same tables at the same moment; SQLite says it in words.
TWICE = (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError)


def connect(address: str) -> RDBStorage:
    """The Optuna storage in the database at a URL, with heartbeats.

    A PostgreSQL URL is taken with any scheme that hosts and other programs write: postgres, postgresql, with or
    without a driver. Raises InputError, without the password, when it is no URL, its driver is not installed or the
    database cannot be used.
    """
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        url = sqlalchemy.make_url(address.strip())
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError("qat_search.storage: not a database URL, such as postgresql://user@host/database") from None
    if url.drivername.partition("+")[0].lower() in ("postgres", "postgresql"):  # the driver that is installed
        url = url.set(drivername="postgresql+psycopg2")
    full = url.render_as_string(hide_password=False)
    for attempt in range(5):
        try:
            return RDBStorage(
                full,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(RETRIES),
            )
        except Exception as error:  # of SQLAlchemy, of the driver, or that there is no driver
            caught = error
        if not isinstance(caught, TWICE) and "already exists" not in str(caught):
            break
        time.sleep(attempt)
    reason = _reason(caught).replace(full, str(url))
    for secret in (url.password, url.query.get("password")):
        reason = reason.replace(str(secret), "***") if secret else reason
    raise InputError(f"qat_search.storage: {reason}")


def _reason(error: BaseException) -> str:
    """What the driver said, in one line."""
    said = getattr(error, "orig", None) or (isinstance(error, ImportError) and error.__cause__) or error
    return one_line(said)


def open_study(name: str, storage: str | None, folder: Path | str, wait: bool = False) -> optuna.Study:
    """The study called `name`, made when it is not there.

    storage: the URL of a database that many workers reach, or None for the file `<name>.db` under `folder`, which has
    one worker: a trial that runs when the file is opened was interrupted. wait: do not make the study, wait until
    another worker does. Raises InputError when the database or the file cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _storage_errors(name, bool(storage)):
        if storage:
            backend = connect(storage)
            if wait:
                _await(name, backend)
            print(f"study {name}", flush=True)
        else:
            path = Path(folder, f"{name}.db")
            path.parent.mkdir(parents=True, exist_ok=True)
            backend = RDBStorage(f"sqlite:///{path}")
        study = optuna.create_study(study_name=name, storage=backend, directions=DIRECTIONS, load_if_exists=True)
        if not storage:
            for trial in study.get_trials(states=(TrialState.RUNNING,)):
                study.tell(trial.number, state=TrialState.FAIL)
    return study


@contextlib.contextmanager
def _storage_errors(name: str, shared: bool) -> Iterator[None]:
    """Turn an error of the database or the file into an InputError that says which it is."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error  # Optuna fails again while it handles what the storage raised
        while cause and not isinstance(cause, (StorageInternalError, sqlalchemy.exc.SQLAlchemyError)):
            cause = cause.__context__
        if not cause:
            raise
        place = "qat_search.storage" if shared else f"{name}.db"
        raise InputError(
            f"{place}: {_reason(cause.__cause__ or cause)}; the same command goes on where this stopped"
        ) from None


def _await(name: str, backend: RDBStorage) -> None:
    """Wait for the stage to make the study: a worker that made one would go on alone where its data or settings are not
    those of the stage."""
    if name not in optuna.get_all_study_names(backend):
        print(
            f"waiting for the stage to begin study {name} (one of another name has other data, another encoder "
            "or other settings)",
            flush=True,
        )
    while name not in optuna.get_all_study_names(backend):
        time.sleep(WAIT)


def run_trials(
    study: optuna.Study,
    n_trials: int,
    objective: Callable[[optuna.Trial, int], Sequence[float]],
    sampler: Callable[[int], BaseSampler],
    shared: bool,
) -> None:
    """Run trials until `n_trials` of the study are complete.

    objective: gives the values of a trial, for it and its seed number; sampler: gives the sampler for a seed number.
    shared: whether other workers run trials of the study too. The seed number of a trial is then its own number;
    without others it is the number of the trials completed before it, so that a trial that was interrupted is run
    again with the same parameters. A shared trial whose worker died is run again by Optuna, with its parameters.
    Raises what the objective raises, and InputError when the database or the file is lost.
    """
    done = len(complete(study, n_trials))
    if done:
        print(f"{done} of {n_trials} trials were finished before", flush=True)
    with (
        _storage_errors(study.study_name, shared),
        tqdm(total=n_trials, desc="search", unit="trial", initial=done, smoothing=0, disable=None) as bar,
    ):
        while done < n_trials:
            _run_trial(study, objective, sampler, shared)
            done = len(complete(study, n_trials))
            bar.update(done - bar.n)


def _run_trial(study, objective, sampler, shared):
    """Run the trial that waits to be run again, or a new one."""
    taken_over = False

    def attempt(trial):
        nonlocal taken_over
        number = trial.number if shared else len(complete(study))
        study.sampler = sampler(number)
        try:
            trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
            return objective(trial, number)
        except UpdateFinishedTrialError:
            taken_over = True
            raise

    try:
        study.optimize(attempt, n_trials=1)
    except Exception:  # what Optuna raises for a trial that it may not finish
        if not taken_over:
            raise
        print_line(f"a trial was given to another worker: the database had not heard of this one for {GRACE} seconds")


def print_line(line: str) -> None:
    """Print a line, above the progress bars where there are any."""
    tqdm.write(line)
    sys.stdout.flush()


def complete(study: optuna.Study, n_trials: int | None = None) -> list[FrozenTrial]:
    """The complete trials by number, at most `n_trials`: workers that ran side by side may have completed more."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[:n_trials]
