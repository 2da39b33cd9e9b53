"""An Optuna study that any number of workers complete together, each trial once."""
import shutil
import time
import warnings
from pathlib import Path

import optuna
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from src.errors import InputError

INDEX = "index"  # of a trial among those wanted: it keeps it when it is tried again
DIRECTIONS = ("minimize", "minimize", "minimize")  # validation objective, GMACs, megabytes
HEARTBEAT, GRACE = 10, 60  # seconds: a worker reports, and is given up when it did not
RETRIES = 3
WAIT = 2  # seconds between two looks at what other workers do


def open_study(name, storage, folder):
    """The study called `name`, made when it is not there.

    storage: an Optuna storage URL (a database that many machines reach), or None for a file under `folder`.
    On a file there is one worker: a trial that runs when it opens was interrupted. Raises InputError when the
    database cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if storage is None:
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        backend = JournalStorage(JournalFileBackend(str(place / f"{name}.log")))
    else:
        try:
            backend = RDBStorage(
                storage, heartbeat_interval=HEARTBEAT, grace_period=GRACE, engine_kwargs={"pool_pre_ping": True},
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )
        except Exception as error:  # of SQLAlchemy, of the driver, or that the driver is not installed
            reason = " ".join(str(error).split()).split(" (Background")[0]
            raise InputError(f"qat_search.storage: {reason}") from None
    study = optuna.create_study(study_name=name, storage=backend, directions=DIRECTIONS, load_if_exists=True)
    if storage is None:
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
    return study


def enqueue(study, wanted):
    """Let trials wait until `wanted` of them wait, run or are complete."""
    states = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
    known = {trial.user_attrs.get(INDEX) for trial in study.get_trials(deepcopy=False, states=states)}
    for index in sorted(set(range(wanted)) - known):
        study.enqueue_trial({}, user_attrs={INDEX: index})


def work(study, wanted, run, sampler, alone):
    """Run trials until `wanted` are complete, whoever ran them.

    run: what gives a trial's values; sampler: what gives the sampler for a trial's index; alone: no other worker
    can reach the study, so that trials are made one by one, in order, and one that was interrupted comes
    before those after it. Raises InputError when a trial was given up too often.
    """
    while len(complete(study)) < wanted:
        fail_stale_trials(study)
        if alone:
            enqueue(study, len(complete(study)) + 1)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if waiting:
            study.sampler = sampler(min(trial.user_attrs[INDEX] for trial in waiting))
            study.optimize(lambda trial: _run(trial, run), n_trials=1)
        elif study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            time.sleep(WAIT)
        elif len(complete(study)) < wanted:
            raise InputError(f"qat_search: a trial was given up {RETRIES} times; its workers died")


def _run(trial, run):
    if INDEX not in trial.user_attrs:  # another worker took the last one that waited
        raise optuna.TrialPruned
    return run(trial)


def complete(study):
    """The complete trials, one of each index, by index."""
    found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted({trial.user_attrs[INDEX]: trial for trial in found}.values(), key=lambda t: t.user_attrs[INDEX])


def clear(folder):
    """Forget the studies that are kept in files."""
    shutil.rmtree(folder, ignore_errors=True)
