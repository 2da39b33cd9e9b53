"""An Optuna study that any number of workers complete together, each trial once."""

import os
import socket
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage, fail_stale_trials
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from tqdm import tqdm

from src.runtime.errors import InputError, reason

INDEX = "index"  # of a trial among those wanted: it keeps it when it is tried again
WORKER = "worker"  # of a trial: host and process that ran it
DIRECTIONS = ("minimize", "minimize", "minimize")  # validation objective, GMACs, megabytes
# Seconds: a worker reports, and its trial is given to another when it has not for so long. Six reports may be late
# or lost before a trial is run twice for nothing; a dead worker's trial, of minutes or hours, waits half a minute.
HEARTBEAT, GRACE = 5, 30
RETRIES = 3
WAIT = 1  # seconds between two looks at what other workers do
# What a database says to all but one of those that make the same tables at the same moment; SQLite says it in words.
TWICE = (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError)
ALIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


def connect(url: str) -> RDBStorage:
    """The Optuna storage in the database at `url`, with heartbeats.

    A PostgreSQL URL is taken with any scheme that hosts and other programs write: postgres, postgresql, with or
    without a driver. Raises InputError, without the password, when it is no URL, its driver is not installed or the
    database cannot be used.
    """
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        url = sqlalchemy.make_url(url.strip())
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError("qat_search.storage: not a database URL, such as postgresql://user@host/database") from None
    if url.drivername.partition("+")[0].lower() in ("postgres", "postgresql"):  # the driver that is installed
        url = url.set(drivername="postgresql+psycopg2")
    full = url.render_as_string(hide_password=False)
    for attempt in range(5):
        try:
            return RDBStorage(
                full, engine_kwargs={"pool_pre_ping": True}, heartbeat_interval=HEARTBEAT, grace_period=GRACE
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


def _reason(error):
    """What the driver said, in one line."""
    told = getattr(error, "orig", None) or (isinstance(error, ImportError) and error.__cause__) or error
    return " ".join(str(told).split())


def open_study(name, storage, folder, wait=False):
    """The study called `name`, made when it is not there.

    storage: an Optuna storage URL (a database that many machines reach), or None for a file under `folder`.
    On a file there is one worker: a trial that runs when it opens was interrupted. wait: do not make it, wait until
    another does. Raises InputError when the database cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if storage is None:
        backend = JournalStorage(_file(Path(folder, f"{name}.log")))
    else:
        backend = connect(storage)
        if wait:
            _await(name, backend)
        print(f"study {name}", flush=True)
    study = optuna.create_study(study_name=name, storage=backend, directions=DIRECTIONS, load_if_exists=True)
    if storage is None:
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
    return study


def _file(path):
    """The backend of a study's file that no other worker uses. What one that was killed, or a full disk, left
    half-written at its end is taken off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists():
        with open(path, "rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    return _File(str(path))


class _File(JournalFileBackend):
    def append_logs(self, logs):
        try:
            super().append_logs(logs)
        except OSError as error:
            raise InputError(
                f"{self._file_path}: cannot be written: {reason(error)}; the same command goes on where this stopped"
            ) from None


def _await(name, backend):
    """A worker that made a study would go on alone where its data or settings are not those of the stage."""
    said = False
    while name not in optuna.get_all_study_names(backend):
        if not said:
            print(
                f"waiting for the stage to begin study {name} (one of another name has other data, another encoder "
                "or other settings)",
                flush=True,
            )
            said = True
        time.sleep(WAIT)


def work(study, wanted, run, sampler, alone):
    """Run trials until the first `wanted` are complete, whoever ran them.

    run: what gives a trial's values; sampler: what gives the sampler for a trial's index. Trials begin in order, one
    that was interrupted before those after it. alone: no other worker can reach the study; otherwise the trial of
    a worker that died, or failed, is given to another with the parameters that it had. Raises InputError when one
    has failed too often since this worker began, or the database is lost.
    """
    before, silent, done = _failures(study), {}, len(complete(study, wanted))
    if done:
        print(f"{done} of {wanted} trials were finished before", flush=True)
    try:
        with tqdm(total=wanted, desc="search", unit="trial", initial=done, smoothing=0, disable=None) as bar:
            while done < wanted:
                if not alone:
                    _give_up(study, silent)
                    _check(_failures(study) - before)
                if _waits(study) or _enqueue(study, wanted, keep=not alone):
                    _next(study, run, sampler)
                else:
                    time.sleep(WAIT)
                done = len(complete(study, wanted))
                bar.update(done - bar.n)
    except Exception as error:
        lost = error  # Optuna fails again while it handles it
        while lost and not isinstance(lost, (StorageInternalError, InputError)):
            lost = lost.__context__
        if not lost:
            raise
        if isinstance(lost, InputError):
            raise lost from None
        raise InputError(
            f"qat_search.storage: {_reason(lost.__cause__ or lost)}; the same command goes on where this stopped"
        ) from None


def tell(line):
    """Print a line, above the progress bars where there are any."""
    tqdm.write(line)
    sys.stdout.flush()


def _waits(study):
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _enqueue(study, wanted, keep):
    """Let the first of the `wanted` trials wait that does not run and is not complete; whether there is one.

    keep: with the parameters that it had, if it failed.
    """
    trials = study.get_trials(deepcopy=False)
    known = {trial.user_attrs.get(INDEX) for trial in trials if trial.state in ALIVE}
    failed = {trial.user_attrs.get(INDEX): trial.params for trial in trials if trial.state == TrialState.FAIL}
    index = next((index for index in range(wanted) if index not in known), None)
    if index is not None:
        study.enqueue_trial(failed.get(index, {}) if keep else {}, user_attrs={INDEX: index})
    return index is not None


def _next(study, run, sampler):
    """Run the first trial that waits, if no other worker is faster."""
    lost = []

    def attempt(trial):
        index = trial.user_attrs.get(INDEX)
        try:
            if index is None or trial.number != _first(study, index):
                # None waited any more, or two workers let the same one wait. This one fails and counts for nothing.
                trial.set_user_attr(INDEX, None)
                return None
            trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
            study.sampler = sampler(index)
            return run(trial)
        except UpdateFinishedTrialError:
            lost.append(index)
            raise

    try:
        study.optimize(attempt, n_trials=1)
    except Exception:  # what Optuna raises for a trial that it may not finish
        if not lost:
            raise
        tell(
            f"trial {lost[0] + 1} was given to another worker: the database had not heard of this one for {GRACE} "
            "seconds"
        )


def _first(study, index):
    """The number of the trial that stands for `index`."""
    return min(
        (
            trial.number
            for trial in study.get_trials(deepcopy=False, states=ALIVE)
            if trial.user_attrs.get(INDEX) == index
        ),
        default=None,
    )


def _give_up(study, silent):
    """Fail the trials whose workers died.

    silent: {number: when it was first seen} of running trials without parameters, kept from call to call. A trial
    draws them at once; if it never does, its worker died before its first heartbeat, which Optuna waits for
    forever.
    """
    fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not trial.params and time.monotonic() - silent.setdefault(trial.number, time.monotonic()) > GRACE:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def _failures(study):
    """How often the trial of each index has failed."""
    return Counter(
        trial.user_attrs.get(INDEX)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        if trial.user_attrs.get(INDEX) is not None
    )


def _check(failures):
    for index, times in failures.items():
        if times > RETRIES:
            raise InputError(f"qat_search: trial {index + 1} failed {times} times; the workers that ran it say why")


def complete(study, wanted):
    """Of the first `wanted` trials those that are complete, by index."""
    found = {
        trial.user_attrs[INDEX]: trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    }
    return [found[index] for index in sorted(found) if index < wanted]
