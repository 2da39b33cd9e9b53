"""The search for the hyperparameters of quantisation-aware fine-tuning."""
import copy
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from src.quantize import qat
from src.quantize.ptq import observers

# Length in samples of the validation crops: every utterance is heard once, at one length.
VALIDATION_SAMPLES = 3 * 16_000
# With so few trials, TPE's usual ten random ones would leave it nothing to do.
STARTUP_TRIALS = 2


@dataclass(frozen=True)
class Task:
    """What every trial starts from.

    student: calibrated graph with its observers (`ptq.prepare`, `ptq.activation_ranges`); teacher: PlainEcapa;
    front_end: FrontEnd; finetune and validation: (list of float32 waveforms [n], list of speakers).
    """

    student: torch.nn.Module
    ranges: dict
    teacher: torch.nn.Module
    front_end: torch.nn.Module
    finetune: tuple
    validation: tuple
    device: str
    seed: int


@dataclass(frozen=True)
class Result:
    trials: list  # one dict a trial, by number
    best: dict  # the trial with the lowest objective
    state: dict  # the parameters that it ended with
    before: float  # the objective of the student that nobody trained
    reference: float  # the objective of the teacher


def objective(network, task):
    """How well unseen speakers are told apart: `qat.speaker_loss` of validation utterances against
    leave-one-out prototypes of validation speakers. Lower is better.

    Unlike top-1 accuracy or the EER of some hundred utterances it does not stop at 0 errors nor move in steps:
    it sees every margin.
    """
    waveforms, speakers = task.validation
    pieces = [np.resize(w, VALIDATION_SAMPLES) if len(w) < VALIDATION_SAMPLES else w[:VALIDATION_SAMPLES]
              for w in waveforms]
    embeddings = qat.embed(network, task.front_end, pieces, task.device)
    numbers = torch.as_tensor(_numbered(speakers), device=embeddings.device)
    return qat.speaker_loss(embeddings, qat.leave_one_out(embeddings, numbers), numbers).item()


def run(task, wanted, folder):
    """Run trials until `wanted.n_trials` are complete, and give the Result.

    wanted: the section qat_search of the parameters. The study and the best weights so far are kept under
    `folder`, in a place that depends on all that the trials depend on: an interrupted search goes on where it
    was, one with other inputs starts anew. Each trial draws from a generator seeded by the number of trials
    complete before it, so an interrupted search ends as an undisturbed one does.
    """
    place = Path(folder) / _fingerprint(task, wanted)
    place.mkdir(parents=True, exist_ok=True)
    task.teacher.to(task.device), task.front_end.to(task.device)
    before = objective(student(task), task)
    reference = objective(task.teacher, task)
    study = _study(place)
    while (number := len(_complete(study))) < wanted.n_trials:
        study.sampler = optuna.samplers.TPESampler(seed=task.seed + number, n_startup_trials=STARTUP_TRIALS)
        trial = study.ask()
        chosen = qat.Hyperparameters(**_suggest(trial, wanted))
        network = student(task)
        loss = qat.finetune(
            network, task.teacher, task.front_end, task.finetune[0], _numbered(task.finetune[1]), chosen,
            steps=wanted.steps, samples=round(wanted.crop_seconds * 16_000), seed=[task.seed, number],
            device=task.device, progress=f"trial {number + 1}/{wanted.n_trials}",
        )
        value = objective(network, task)
        _save(network.state_dict(), place / f"trial-{number}.pt")
        trial.set_user_attr("train_loss", loss)
        study.tell(trial, value)
        print(f"trial {number + 1}/{wanted.n_trials}: objective {value:.4f} (untrained {before:.4f}, fp32 "
              f"{reference:.4f}), " + ", ".join(f"{k} {v:.3g}" for k, v in asdict(chosen).items()), flush=True)
    trials = [_row(number, trial) for number, trial in enumerate(_complete(study))]
    best = min(trials, key=lambda row: row["objective"])
    state = torch.load(place / f"trial-{best['trial']}.pt", map_location="cpu", weights_only=True)
    return Result(trials, best, state, before, reference)


def clear(folder):
    """Forget finished and unfinished searches."""
    shutil.rmtree(folder, ignore_errors=True)


def student(task, state=None):
    """The fake-quantised student on the task's device, as calibrated or with a trial's parameters."""
    fresh = qat.fake_quantise(copy.deepcopy(task.student), task.ranges)
    if state is not None:
        fresh.load_state_dict(state)
    return fresh.to(task.device)


def _numbered(speakers):
    number = {speaker: index for index, speaker in enumerate(sorted(set(speakers)))}
    return np.array([number[speaker] for speaker in speakers])


def _suggest(trial, wanted):
    return {
        "learning_rate": trial.suggest_float("learning_rate", **wanted.learning_rate.model_dump(), log=True),
        "weight_decay": trial.suggest_float("weight_decay", **wanted.weight_decay.model_dump(), log=True),
        "batch_size": trial.suggest_categorical("batch_size", wanted.batch_size),
        "speaker_loss_weight": trial.suggest_float(
            "speaker_loss_weight", **wanted.speaker_loss_weight.model_dump()
        ),
    }


def _study(place):
    """The study of this place; trials that were running when it was interrupted are given up."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(place / "study.log")))
    study = optuna.create_study(storage=storage, study_name="qat", direction="minimize", load_if_exists=True)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _complete(study):
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _row(number, trial):
    return {"trial": number, "objective": trial.value, "train_loss": trial.user_attrs["train_loss"], **trial.params}


def _fingerprint(task, wanted):
    """A name for all that the trials depend on."""
    digest = hashlib.sha256()
    settings = wanted.model_dump(exclude={"n_trials"})
    bounds = [(name, module.quant_min, module.quant_max) for name, module in observers(task.student).items()]
    digest.update(json.dumps([settings, bounds, task.ranges, task.seed, task.device], sort_keys=True).encode())
    for name, tensor in [*task.teacher.state_dict().items(), *task.front_end.state_dict().items()]:
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    for waveforms, speakers in (task.finetune, task.validation):
        for waveform, speaker in zip(waveforms, speakers):
            digest.update(speaker.encode() + waveform.tobytes())
    return digest.hexdigest()[:16]


def _save(state, path):
    beside = path.with_suffix(".partial")
    torch.save(state, beside)
    os.replace(beside, path)
