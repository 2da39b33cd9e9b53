"""The search for a smaller network and the hyperparameters of its quantisation-aware fine-tuning."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch

from src.common.params import QatSearch
from src.evaluate import validation
from src.quantize import qat
from src.search import choice, frontier, study, trial
from src.search.price import Milliseconds
from src.search.structure import Structure
from src.search.trial import Setup

# With so few trials, TPE's usual ten random ones would leave it nothing to do.
STARTUP_TRIALS = 2
# The packages that a trial runs: with other code its values may be others.
CODE = ("data", "encoder", "evaluate", "quantize", "runtime", "search")
UNTRAINED = -1  # the trial of which a network that nobody trained is the result
FRONTIER = "frontier"  # attribute of the study
REACH = 0.4  # of the smallest share that passed: as far below it as a trial looks
COLUMNS = (  # of metrics/frontier.csv and metrics/trials.csv
    *choice.OBJECTIVES,
    *(f"{key}_difference{end}" for key in validation.METRICS for end in ("", "_low", "_high")),
    "noninferior",
    "front",
)
STEP = 0.95  # of a share: a smaller step is not worth a trial


@dataclass(frozen=True)
class Result:
    """trials and frontier: one dict a trial, by number, and one a size that nobody trained, from the largest down; `front`
    is 1 for the Pareto-optimal ones of both together, and `noninferior` for those that pass; chosen: the one of both that
    `choice.select` gives, or None; student: the chosen trial's, if this process ran it for as many steps as the chosen one is
    to have; structure: of the chosen, or everything; reference: the objective of the teacher; speakers_needed: on how
    many validation speakers a student that loses nothing would pass."""

    trials: list[choice.Row]
    frontier: list[choice.Row]
    chosen: choice.Row | None
    student: torch.nn.Module | None
    structure: Structure
    reference: float
    speakers_needed: int


def run(setup: Setup, settings: QatSearch, folder: Path | str, worker: bool = False) -> Result | None:
    """Trace the frontier without training, run trials below its knee until `settings.n_trials` are complete, and give the
    Result; None to a worker.

    settings: the section qat_search of the parameters. The study is kept under `folder`, or in
    `settings.storage`, under a name that depends on all that the trials depend on: an interrupted search goes
    on where it was, one with other inputs starts anew. The sampler of each trial has its own seed, so that one
    worker's search repeats exactly, interrupted or not.
    """
    shared = bool(settings.storage)
    trials = study.open_study(fingerprint(setup, settings), settings.storage, folder, wait=worker)
    setup = _priced(trials, setup, settings, worker)
    for module in (setup.teacher, setup.front_end):
        module.to(setup.device)
    reference = trial.validate(setup.teacher, setup)
    points = _frontier(trials, setup, settings, reference, worker)
    level = validation.trial_level(settings.n_trials + 1)  # the frontier is one test
    passing = frontier.passing(points, setup.margins, level)
    good = [point["share"] for point, passes in zip(points, passing) if passes]
    knee = frontier.knee(points, setup.margins)

    students: dict[int, torch.nn.Module] = {}  # of the last trial that passed here, by its number

    def objective(attempt, number):
        title = f"trial {number + 1}" if shared else f"trial {number + 1}/{settings.n_trials}"
        done = study.complete(trials, number)
        trained = [(one.params["share"], _passes(one, setup.margins, level)) for one in done]
        share = next_share(trained, good, knee) if settings.structure else 1.0
        values, student = trial.run(attempt, setup, settings, reference, share, number == 0, title)
        if _passes(attempt, setup.margins, level):
            students.clear()
            students[attempt.number] = student
        return values

    def sampler(number):
        return optuna.samplers.TPESampler(seed=setup.seed + number, n_startup_trials=STARTUP_TRIALS)

    study.run_trials(trials, settings.n_trials, objective, sampler, shared)
    if worker:
        return None
    completed = study.complete(trials, settings.n_trials)
    sizes = [
        {"trial": UNTRAINED, "share": point["share"], **_row(point, frontier.losses(point)), "noninferior": int(passes)}
        for point, passes in zip(points, passing)
    ]
    rows = [_trial_row(index, attempt, setup.margins, level) for index, attempt in enumerate(completed)]
    for row, optimal in zip([*sizes, *rows], choice.pareto_optimal([*sizes, *rows])):
        row["front"] = int(optimal)
    chosen = choice.select([*sizes, *rows], settings.objective)
    student = None
    if chosen and chosen["trial"] != UNTRAINED and settings.final_steps == settings.steps:
        student = students.get(completed[int(chosen["trial"])].number)
    everything = [frontier.losses(each) for each in (*points, *(attempt.user_attrs for attempt in completed))]
    return Result(
        rows,
        sizes,
        chosen,
        student,
        setup.source.structures.of_share(chosen["share"] if chosen else 1.0),
        reference.objective,
        min(validation.speakers_needed(each, setup.margins, max(level, validation.ASSURED)) for each in everything),
    )


def next_share(trained: Sequence[tuple[float, bool]], untrained: Sequence[float], knee: float) -> float:
    """The size of the next trial, by bisection: the geometric mean of the largest that failed, trained, and the smallest that
    passed, trained or not.

    trained: (share, whether it passed) of the trials before; untrained: shares that passed without training; knee: of the
    frontier without training, where the first trial is. Where nothing failed yet a trial looks down to REACH of what
    passed, where nothing passed up to as much above what failed.
    """
    if not trained:
        return knee
    passed = [*untrained, *(share for share, good in trained if good)]
    high = STEP * min(passed) if passed else 1.0
    failed = [share for share, good in trained if not good]
    if passed:
        low = max((share for share in failed if share < high), default=REACH * high)
    else:
        low, high = max(failed), min(1.0, max(failed) / REACH)
    return math.sqrt(low * high)


def _priced(trials, setup, settings, worker):
    """The setup, with structures that are chosen by what is to be small."""
    if settings.objective == "gmacs":
        return setup
    if settings.objective == "size":
        price = setup.source.bytes
    else:
        price = Milliseconds(
            **_once(trials, "milliseconds", lambda: asdict(setup.source.milliseconds(setup.front_end)), worker)
        )
    structures = setup.source.structures.priced(price)
    return replace(setup, source=replace(setup.source, structures=structures))


def _frontier(trials, setup, settings, reference, worker):
    """The points of the frontier."""

    def trace():
        shares = frontier.shares(setup.source.structures) if settings.structure else [1.0]
        return list(frontier.trace(setup, reference, shares))

    return _once(trials, FRONTIER, trace, worker)


def _once(trials, name, measure, worker):
    """An attribute of the study, which keeps it: the stage measures it, its workers wait for it."""
    while worker and name not in trials.user_attrs:
        time.sleep(study.WAIT)
    if name not in trials.user_attrs:
        trials.set_user_attr(name, measure())
    return trials.user_attrs[name]


def _row(values, losses):
    row = {key: values[key] for key in choice.OBJECTIVES}
    for key, loss in losses.items():
        value, low, high = validation.difference(key, loss).values()
        row |= {f"{key}_difference": value, f"{key}_difference_low": low, f"{key}_difference_high": high}
    return row


def _passes(attempt, margins, level):
    return validation.assured(frontier.losses(attempt.user_attrs), margins, level)


def _trial_row(index, attempt, margins, level):
    """A complete trial for metrics/trials.csv; level: the confidence that it has to pass with."""
    losses = frontier.losses(attempt.user_attrs)
    return {
        "trial": index,
        **_row(dict(zip(choice.OBJECTIVES, attempt.values)), losses),
        "train_loss": attempt.user_attrs["train_loss"],
        "learning_rate": attempt.user_attrs["learning_rate"],
        "noninferior": int(_passes(attempt, margins, level)),
        **attempt.params,
    }


def hyperparameters(row: choice.Row) -> qat.Hyperparameters:
    """The Hyperparameters of a trial's row."""
    values: dict[str, Any] = {name: row[name] for name in qat.Hyperparameters.__annotations__}
    return qat.Hyperparameters(**values)


def fingerprint(setup: Setup, settings: QatSearch) -> str:
    """A name for all that the trials depend on."""
    source = setup.source
    described = [
        settings.model_dump(exclude={"n_trials", "storage", "final_steps"}),
        source.observer,
        source.weight_bits,
        setup.seed,
        setup.speech.enrolments,
        setup.speech.gallery,
        setup.device,
        torch.get_num_threads(),
        torch.__version__,
        optuna.__version__,
    ]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for path in sorted(path for package in CODE for path in Path(__file__).parents[1].glob(f"{package}/**/*.py")):
        digest.update(path.read_bytes())
    for name, tensor in [*setup.teacher.state_dict().items(), *setup.front_end.state_dict().items()]:
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    for features in source.features:
        digest.update(features.numpy().tobytes())
    for waveforms, speakers in (setup.finetune, setup.validation):
        for waveform, speaker in zip(waveforms, speakers):
            digest.update(speaker.encode() + waveform[:].tobytes())
    return digest.hexdigest()[:16]
