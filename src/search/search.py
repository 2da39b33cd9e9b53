"""The search for a smaller network and the hyperparameters of its quantisation-aware fine-tuning."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import optuna
import torch

from src.evaluate import accuracy, result, test_set
from src.quantize import qat
from src.runtime.audio import SAMPLE_RATE
from src.search import study
from src.search.student import Source

# Length in samples of the validation crops: every utterance is heard once, at one length.
VALIDATION_SAMPLES = 3 * SAMPLE_RATE
# With so few trials, TPE's usual ten random ones would leave it nothing to do.
STARTUP_TRIALS = 2
CODE = (
    "data",
    "encoder",
    "evaluate",
    "quantize",
    "runtime",
    "search",
)  # what a trial runs: of other code its values may be others
UNTRAINED = -1  # the trial of which the plain INT8 model is the result
COMPARED = {"eer": "eer", "top1_accuracy": "top1"}  # what a trial may not lose, and how its columns call it


@dataclass(frozen=True)
class Task:
    """What every trial starts from.

    source: of the students; teacher: its network again, which may be moved; front_end: FrontEnd; finetune and
    validation: (list of float32 waveforms [n] or of `Waveform`, list of speakers); test: of the validation waveforms,
    see `test_set.make_test`; frames: of an utterance that costs are counted for.
    """

    source: Source
    teacher: torch.nn.Module
    front_end: torch.nn.Module
    finetune: tuple
    validation: tuple
    test: test_set.Test
    frames: int
    resamples: int
    device: str
    seed: int


@dataclass(frozen=True)
class Result:
    """trials: one dict a trial, by number, with `front`, 1 for those that no other beats in objective, GMACs and
    size at once, and `noninferior`; chosen: the one of them that `select` chose, or None; before and reference:
    the objectives of the plain student that nobody trained and of the teacher."""

    trials: list
    chosen: dict
    before: float
    reference: float


def run(task, wanted, folder, worker=False):
    """Run trials until `wanted.n_trials` are complete, and give the Result; None to a worker.

    wanted: the section qat_search of the parameters. The study is kept under `folder`, or in
    `wanted.storage`, under a name that depends on all that the trials depend on: an interrupted search goes
    on where it was, one with other inputs starts anew. Each trial draws from a generator seeded by its number,
    so that one worker's search repeats exactly, interrupted or not.
    """
    found = study.open_study(fingerprint(task, wanted), wanted.storage, folder, wait=worker)
    task.teacher.to(task.device), task.front_end.to(task.device)
    teacher = _embed(task.teacher, task)
    reference, teacher = objective(teacher, task), _result(teacher, task)

    def trial_values(trial):
        return _trial(trial, task, wanted, teacher, reference)

    study.work(
        found,
        wanted.n_trials,
        trial_values,
        lambda index: optuna.samplers.TPESampler(seed=task.seed + index, n_startup_trials=STARTUP_TRIALS),
        alone=not wanted.storage,
    )
    if worker:
        return None
    rows = [_row(trial, wanted) for trial in study.complete(found, wanted.n_trials)]
    mark_pareto(rows)
    before = objective(_embed(task.source.student({}).to(task.device), task), task)
    return Result(rows, select(rows), before, reference)


def _trial(trial, task, wanted, teacher, reference):
    """The values of a trial, as `study.DIRECTIONS` names them; what else is known of it as its attributes."""
    index = trial.user_attrs[study.INDEX]
    share, chosen = _suggest(trial, wanted)
    ranks = task.source.ranks(share)
    gmacs, megabytes = task.source.cost(ranks, task.frames)
    network, loss = train(task, wanted, ranks, chosen, wanted.steps, f"trial {index + 1}/{wanted.n_trials}")
    embeddings = _embed(network, task)
    value = objective(embeddings, task)
    found = accuracy.figures(task.test, _result(embeddings, task), task.resamples, task.seed, teacher)["difference"]
    trial.set_user_attr("train_loss", loss)
    for key, name in COMPARED.items():
        for end, number in found[key].items():
            trial.set_user_attr(_column(name, end), number)
    eer = [f"{100 * found['eer'][end]:+.2f}" for end in ("value", "low", "high")]
    study.tell(
        f"trial {index + 1}/{wanted.n_trials}: {gmacs:.4f} GMACs, objective {value:.4f} (fp32 {reference:.4f}), "
        f"EER {eer[0]} points [{eer[1]}, {eer[2]}], " + ", ".join(f"{k} {v:.3g}" for k, v in asdict(chosen).items())
    )
    return value, gmacs, megabytes


def train(task, wanted, ranks, chosen, steps, progress):
    """(student, training loss): a student with these ranks, fine-tuned with the Hyperparameters `chosen`; the same
    each time on one device."""
    network = task.source.student(ranks).to(task.device)
    waveforms, speakers = task.finetune
    loss = qat.finetune(
        network,
        task.teacher,
        task.front_end,
        waveforms,
        _numbered(speakers),
        chosen,
        steps=steps,
        samples=round(wanted.crop_seconds * SAMPLE_RATE),
        seed=task.seed,
        device=task.device,
        progress=progress,
    )
    return network, loss


def objective(embeddings, task):
    """How well unseen speakers are told apart: `qat.leave_one_out_loss` of the validation utterances. Lower is
    better.

    Unlike top-1 accuracy or the EER of some hundred utterances it does not stop at 0 errors nor move in steps:
    it sees every margin.
    """
    numbers = torch.as_tensor(_numbered(task.validation[1]), device=embeddings.device)
    return qat.leave_one_out_loss(embeddings, numbers).item()


def mark_pareto(rows):
    """Mark the rows that no other row is at least as good as in objective, GMACs and size, and better in one."""
    values = np.array([[row["objective"], row["gmacs"], row["size_mb"]] for row in rows])
    for row, own in zip(rows, values):
        beaten = (values <= own).all(1) & (values < own).any(1)
        row["front"] = int(not beaten.any())


def select(rows):
    """The cheapest row of the front that is not inferior to fp32 on validation speakers, None where none is.

    By GMACs, then size, then objective.
    """
    passed = [row for row in rows if row["front"] and row["noninferior"]]
    return min(passed, key=lambda row: (row["gmacs"], row["size_mb"], row["objective"]), default=None)


def hyperparameters(row):
    """The Hyperparameters of a trial's row."""
    return qat.Hyperparameters(**{name: row[name] for name in qat.Hyperparameters.__annotations__})


def _embed(network, task):
    pieces = (np.resize(waveform[:VALIDATION_SAMPLES], VALIDATION_SAMPLES) for waveform in task.validation[0])
    return qat.embed(network, task.front_end, pieces, task.device)


def _column(name, end):
    return f"{name}_difference" + ("" if end == "value" else f"_{end}")


def _result(embeddings, task):
    return result.score_uncalibrated(embeddings.cpu().numpy(), task.test)


def _suggest(trial, wanted):
    """(share of the multiplications, Hyperparameters)."""
    share = trial.suggest_float("kept_macs", **wanted.kept_macs.model_dump()) if wanted.structure else 1.0
    return share, qat.Hyperparameters(
        learning_rate=trial.suggest_float("learning_rate", **wanted.learning_rate.model_dump(), log=True),
        weight_decay=trial.suggest_float("weight_decay", **wanted.weight_decay.model_dump(), log=True),
        batch_size=trial.suggest_categorical("batch_size", wanted.batch_size),
        speaker_loss_weight=trial.suggest_float("speaker_loss_weight", **wanted.speaker_loss_weight.model_dump()),
    )


def _row(trial, wanted):
    value, gmacs, megabytes = trial.values
    attributes = trial.user_attrs
    return {
        "trial": attributes[study.INDEX],
        "objective": value,
        "gmacs": gmacs,
        "size_mb": megabytes,
        "train_loss": attributes["train_loss"],
        **{
            _column(name, end): attributes[_column(name, end)]
            for name in COMPARED.values()
            for end in ("value", "low", "high")
        },
        # The EER is shown to stay within the margin, and top-1 is not shown to fall.
        "noninferior": int(
            attributes["eer_difference_high"] < wanted.eer_margin and attributes["top1_difference_high"] >= 0
        ),
        "kept_macs": 1.0,
        **trial.params,
    }


def _numbered(speakers):
    number = {speaker: index for index, speaker in enumerate(sorted(set(speakers)))}
    return np.array([number[speaker] for speaker in speakers])


def fingerprint(task, wanted):
    """A name for all that the trials depend on."""
    digest = hashlib.sha256()
    settings = wanted.model_dump(exclude={"n_trials", "storage", "eer_margin", "final_steps"})
    source = task.source
    described = [
        settings,
        source.observer,
        source.weight_bits,
        bool(source.spectra),
        task.seed,
        task.resamples,
        task.device,
        torch.get_num_threads(),
        torch.__version__,
        optuna.__version__,
    ]
    digest.update(json.dumps(described, sort_keys=True).encode())
    for path in sorted(path for package in CODE for path in Path(__file__).parents[1].glob(f"{package}/*.py")):
        digest.update(path.read_bytes())
    for name, tensor in [*source.network.state_dict().items(), *task.front_end.state_dict().items()]:
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    for features in source.features:
        digest.update(features.numpy().tobytes())
    for waveforms, speakers in (task.finetune, task.validation):
        for waveform, speaker in zip(waveforms, speakers):
            digest.update(speaker.encode() + waveform[:].tobytes())
    return digest.hexdigest()[:16]
