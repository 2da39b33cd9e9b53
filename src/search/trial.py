"""What a trial is: suggest hyperparameters, make the student, fine-tune it, validate it."""

from dataclasses import asdict, dataclass

import numpy as np
import optuna
import torch

from src.common.params import Margins, QatSearch
from src.evaluate import validation
from src.evaluate.validation import Speech
from src.quantize import qat
from src.runtime.audio import SAMPLE_RATE
from src.search.student import Source
from src.search.study import print_line

# Length in samples of the validation crops: every utterance is heard once, at one length.
VALIDATION_SAMPLES = 3 * SAMPLE_RATE


@dataclass(frozen=True)
class Setup:
    """What every trial starts from.

    source: of the students; teacher: its network again, which may be moved; front_end: FrontEnd; finetune and
    validation: (list of float32 waveforms [n] or of `Waveform`, list of speakers); speech: the validation waveforms' rows;
    margins: the losses that are to be excluded; frames: of an utterance that costs are counted for.
    """

    source: Source
    teacher: torch.nn.Module
    front_end: torch.nn.Module
    finetune: tuple
    validation: tuple
    speech: Speech
    margins: Margins
    frames: int
    device: str
    seed: int


@dataclass(frozen=True)
class Validation:
    """What a network does on the validation speakers: the search's objective, and its figures."""

    objective: float
    figures: validation.Figures


def run(
    trial: optuna.Trial, setup: Setup, settings: QatSearch, reference: Validation, title: str
) -> tuple[float, float, float]:
    """The values of a trial, as `study.DIRECTIONS` orders them; its training loss and its losses against fp32
    become attributes of the trial. reference: of the teacher; title: the trial's, for what is printed."""
    share, hyperparameters = suggest(trial, settings)
    layer_ranks = setup.source.layer_ranks(share)
    gmacs, megabytes = setup.source.cost(layer_ranks, setup.frames)
    network, loss = train(setup, settings, layer_ranks, hyperparameters, settings.steps, title)
    outcome = validate(network, setup)
    losses = validation.losses(outcome.figures, reference.figures)
    trial.set_user_attr("train_loss", loss)
    trial.set_user_attr("losses", {key: asdict(each) for key, each in losses.items()})
    value, low, high = (f"{100 * end:+.2f}" for end in validation.difference("eer", losses["eer"]).values())
    print_line(
        f"{title}: {gmacs:.4f} GMACs, objective {outcome.objective:.4f} (fp32 {reference.objective:.4f}), "
        f"EER {value} points [{low}, {high}], "
        + ", ".join(f"{name} {value:.3g}" for name, value in asdict(hyperparameters).items())
    )
    return outcome.objective, gmacs, megabytes


def suggest(trial: optuna.Trial, settings: QatSearch) -> tuple[float, qat.Hyperparameters]:
    """(share of the multiplications that the student keeps, hyperparameters of its fine-tuning)."""
    share = trial.suggest_float("kept_macs", **settings.kept_macs.model_dump()) if settings.structure else 1.0
    return share, qat.Hyperparameters(
        learning_rate=trial.suggest_float("learning_rate", **settings.learning_rate.model_dump(), log=True),
        weight_decay=trial.suggest_float("weight_decay", **settings.weight_decay.model_dump(), log=True),
        batch_size=trial.suggest_categorical("batch_size", settings.batch_size),
        speaker_loss_weight=trial.suggest_float("speaker_loss_weight", **settings.speaker_loss_weight.model_dump()),
    )


def train(
    setup: Setup,
    settings: QatSearch,
    layer_ranks: dict[str, int],
    hyperparameters: qat.Hyperparameters,
    steps: int,
    title: str,
) -> tuple[torch.nn.Module, float]:
    """(student with these ranks, fine-tuned; its training loss): the same each time on one device."""
    network = setup.source.student(layer_ranks).to(setup.device)
    waveforms, speakers = setup.finetune
    loss = qat.finetune(
        network,
        setup.teacher,
        setup.front_end,
        waveforms,
        _numbered(speakers),
        hyperparameters,
        steps=steps,
        samples=round(settings.crop_seconds * SAMPLE_RATE),
        seed=setup.seed,
        device=setup.device,
        progress=title,
    )
    return network, loss


def validate(network: torch.nn.Module, setup: Setup) -> Validation:
    """Validate a network on the validation split."""
    waveforms, _ = setup.validation
    crops = (np.resize(waveform[:VALIDATION_SAMPLES], VALIDATION_SAMPLES) for waveform in waveforms)
    embeddings = qat.embed(network, setup.front_end, crops, setup.device)
    return Validation(objective(embeddings, setup), validation.measure(embeddings.cpu().numpy(), setup.speech))


def objective(embeddings: torch.Tensor, setup: Setup) -> float:
    """How well unseen speakers are told apart: `qat.leave_one_out_loss` of the validation utterances' embeddings [n,
    dim]. Lower is better.

    Unlike top-1 accuracy or the EER of some hundred utterances it does not stop at 0 errors nor move in steps:
    it sees every margin.
    """
    numbers = torch.as_tensor(_numbered(setup.validation[1]), device=embeddings.device)
    return qat.leave_one_out_loss(embeddings, numbers).item()


def _numbered(speakers):
    number = {speaker: index for index, speaker in enumerate(sorted(set(speakers)))}
    return np.array([number[speaker] for speaker in speakers])
