"""What a trial is: suggest a size and hyperparameters, make the student, fine-tune it, validate it."""

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any

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


# Of the steps, those in float32, before quantisation: they cost half as much, and what the smaller structure lost is more
# than what quantisation loses; with weights of few bits that loses more. The others are with fake quantisation, whose ranges
# are those of the trained network.
FLOAT, FLOAT_FEW_BITS = 0.9, 0.5
WARM_UP = 10  # steps
# Where the first trial begins: what did best at its size in docs/search.md.
FIRST = {"relative_rate": 3.0, "weight_decay": 1e-5, "speaker_loss_weight": 0.07}


@dataclass(frozen=True)
class Setup:
    """What every trial starts from.

    source: of the students; teacher: its network again, which may be moved; front_end: FrontEnd; finetune and
    validation: (list of float32 waveforms [n] or of `Waveform`, list of speakers); speech: the validation waveforms' rows;
    margins: the losses that are to be excluded; frames: of an utterance that costs are counted for; samples: of a crop;
    draws: how many crops a trial takes.
    """

    source: Source
    teacher: torch.nn.Module
    front_end: torch.nn.Module
    finetune: tuple
    validation: tuple
    speech: Speech
    margins: Margins
    frames: int
    samples: int
    draws: int
    device: str
    seed: int

    @functools.cached_property
    def crops(self) -> qat.Crops:
        """Of the fine-tuning speech."""
        waveforms, speakers = self.finetune
        # More than are drawn would cost memory, and the teacher's time, for nothing.
        each = min(len(qat.SPEEDS), math.ceil(self.draws / len(waveforms)))
        return qat.crops(
            self.teacher,
            self.front_end,
            waveforms,
            _numbered(speakers),
            samples=self.samples,
            seed=self.seed,
            device=self.device,
            each=each,
        )


@dataclass(frozen=True)
class Validation:
    """What a network does on the validation speakers: the search's objective, and its figures."""

    objective: float
    figures: validation.Figures


def run(
    trial: optuna.Trial, setup: Setup, settings: QatSearch, reference: Validation, share: float, first: bool, title: str
) -> tuple[tuple[float, float, float], torch.nn.Module]:
    """(the values of a trial, as `study.DIRECTIONS` orders them; its student); its learning rate, its training loss and its
    losses against fp32 become attributes of the trial. reference: of the teacher; share: of the multiplications that it
    leaves; first: whether it begins with FIRST; title: the trial's, for what is printed."""
    trial.suggest_float("share", share, share)  # it is kept with the trial
    relative_rate, values = suggest(trial, settings, first)
    structure = setup.source.structures.of_share(share)
    network = setup.source.structures.network(structure)
    gmacs, megabytes = setup.source.cost(network, setup.frames)
    network.to(setup.device)
    unit = qat.unit_rate(network, setup.crops, values["speaker_loss_weight"])
    hyperparameters = qat.Hyperparameters(learning_rate=relative_rate * unit, **values)
    network, loss = train(setup, network, hyperparameters, settings.steps, title)
    outcome = validate(network, setup)
    losses = validation.losses(outcome.figures, reference.figures)
    trial.set_user_attr("learning_rate", hyperparameters.learning_rate)
    trial.set_user_attr("train_loss", loss)
    trial.set_user_attr("losses", {key: asdict(each) for key, each in losses.items()})
    print_line(
        f"{title}: {gmacs:.4f} GMACs, objective {outcome.objective:.4f} (fp32 {reference.objective:.4f}), {change(losses)}, "
        + ", ".join(f"{name} {value:.3g}" for name, value in asdict(hyperparameters).items())
    )
    return (outcome.objective, gmacs, megabytes), network


def change(losses: dict[str, validation.Loss]) -> str:
    """The difference of EER to fp32, for what is printed."""
    value, low, high = (f"{100 * end:+.2f}" for end in validation.difference("eer", losses["eer"]).values())
    return f"EER {value} points [{low}, {high}]"


def suggest(trial: optuna.Trial, settings: QatSearch, first: bool) -> tuple[float, dict[str, Any]]:
    """(learning rate in units of `qat.unit_rate`, the other Hyperparameters). The `first` trial has those of FIRST, as far
    as the settings allow."""

    def number(name: str, log: bool) -> float:
        low, high = getattr(settings, name).model_dump().values()
        if first:
            low = high = min(max(FIRST[name], low), high)
        return trial.suggest_float(name, low, high, log=log)

    relative_rate = number("relative_rate", log=True)
    return (
        relative_rate,
        {
            "weight_decay": number("weight_decay", log=True),
            "batch_size": trial.suggest_categorical("batch_size", settings.batch_size),
            "speaker_loss_weight": number("speaker_loss_weight", log=False),
        },
    )


def train(
    setup: Setup, network: torch.nn.Module, hyperparameters: qat.Hyperparameters, steps: int, title: str
) -> tuple[torch.nn.Module, float]:
    """(student, quantised, of a network that is fine-tuned in place; its training loss): the same each time on one device.

    First in float32, then calibrated and with fake quantisation.
    """
    network.requires_grad_(True).to(setup.device)
    share = FLOAT_FEW_BITS if setup.source.few_bits else FLOAT
    first = min(round(share * steps), steps - 1)
    turn = (1 + math.cos(math.pi * first / steps)) / 2  # of the learning rate, where quantisation begins
    tune = functools.partial(qat.finetune, data=setup.crops, hyperparameters=hyperparameters, seed=setup.seed)
    if first:
        tune(network, steps=first, warm_up=WARM_UP, decay=(1.0, turn), progress=title)
    student = setup.source.quantised(network.cpu()).to(setup.device)
    loss = tune(student, steps=steps - first, decay=(turn, 0.0), progress=title)
    return student, loss


def validate(network: torch.nn.Module, setup: Setup) -> Validation:
    """Validate a network on the validation split."""
    waveforms, _ = setup.validation
    cut = (np.resize(waveform[:VALIDATION_SAMPLES], VALIDATION_SAMPLES) for waveform in waveforms)
    embeddings = qat.embed(network, setup.front_end, cut, setup.device)
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
