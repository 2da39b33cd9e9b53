"""The search for a smaller network and the hyperparameters of its quantisation-aware fine-tuning."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from src.common.params import QatSearch
from src.evaluate import validation
from src.quantize import qat
from src.search import choice, study, trial
from src.search.trial import Setup

# With so few trials, TPE's usual ten random ones would leave it nothing to do.
STARTUP_TRIALS = 2
# The packages that a trial runs: with other code its values may be others.
CODE = ("data", "encoder", "evaluate", "quantize", "runtime", "search")
UNTRAINED = -1  # the trial of which the plain INT8 model is the result


@dataclass(frozen=True)
class Result:
    """trials: one dict a trial, by number, with `front`, 1 for Pareto-optimal ones, and
    `noninferior`; chosen: the one that `choice.select` gives, or None; before and reference: the objectives of the
    plain student that nobody trained and of the teacher; speakers_needed: on how many validation speakers a trial that
    loses nothing would pass."""

    trials: list[choice.Row]
    chosen: choice.Row | None
    before: float
    reference: float
    speakers_needed: int


def run(setup: Setup, settings: QatSearch, folder: Path | str, worker: bool = False) -> Result | None:
    """Run trials until `settings.n_trials` are complete, and give the Result; None to a worker.

    settings: the section qat_search of the parameters. The study is kept under `folder`, or in
    `settings.storage`, under a name that depends on all that the trials depend on: an interrupted search goes
    on where it was, one with other inputs starts anew. The sampler of each trial has its own seed, so that one
    worker's search repeats exactly, interrupted or not.
    """
    shared = bool(settings.storage)
    trials = study.open_study(fingerprint(setup, settings), settings.storage, folder, wait=worker)
    for module in (setup.teacher, setup.front_end):
        module.to(setup.device)
    reference = trial.validate(setup.teacher, setup)

    def objective(attempt, number):
        title = f"trial {number + 1}" if shared else f"trial {number + 1}/{settings.n_trials}"
        return trial.run(attempt, setup, settings, reference, title)

    def sampler(number):
        return optuna.samplers.TPESampler(seed=setup.seed + number, n_startup_trials=STARTUP_TRIALS)

    study.run_trials(trials, settings.n_trials, objective, sampler, shared)
    if worker:
        return None
    completed = study.complete(trials, settings.n_trials)
    losses = [_losses(attempt) for attempt in completed]
    level = validation.trial_level(len(completed))
    rows = [_row(index, attempt, losses[index], setup.margins, level) for index, attempt in enumerate(completed)]
    for row, optimal in zip(rows, choice.pareto_optimal(rows)):
        row["front"] = int(optimal)
    before = trial.validate(setup.source.student({}).to(setup.device), setup)
    needed = min(validation.speakers_needed(each, setup.margins, level) for each in losses)
    return Result(rows, choice.select(rows), before.objective, reference.objective, needed)


def _losses(attempt):
    return {key: validation.Loss(**loss) for key, loss in attempt.user_attrs["losses"].items()}


def _row(index, attempt, losses, margins, level):
    """A complete trial for metrics/trials.csv; level: the confidence that it has to pass with."""
    value, gmacs, megabytes = attempt.values
    row = {
        "trial": index,
        "objective": value,
        "gmacs": gmacs,
        "size_mb": megabytes,
        "train_loss": attempt.user_attrs["train_loss"],
    }
    for key, loss in losses.items():
        value, low, high = validation.difference(key, loss).values()
        row |= {f"{key}_difference": value, f"{key}_difference_low": low, f"{key}_difference_high": high}
    row["noninferior"] = int(validation.verdict(losses, margins, level) == "passes")
    return {**row, "kept_macs": 1.0, **attempt.params}


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
        bool(source.spectra),
        setup.seed,
        setup.speech.enrolments,
        setup.speech.gallery,
        setup.device,
        torch.get_num_threads(),
        torch.__version__,
        optuna.__version__,
    ]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for path in sorted(path for package in CODE for path in Path(__file__).parents[1].glob(f"{package}/*.py")):
        digest.update(path.read_bytes())
    for name, tensor in [*source.network.state_dict().items(), *setup.front_end.state_dict().items()]:
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    for features in source.features:
        digest.update(features.numpy().tobytes())
    for waveforms, speakers in (setup.finetune, setup.validation):
        for waveform, speaker in zip(waveforms, speakers):
            digest.update(speaker.encode() + waveform[:].tobytes())
    return digest.hexdigest()[:16]
