"""Quantisation-aware fine-tuning of the whole encoder.

Every observer of the calibrated graph is replaced by fake quantisation with a straight-through gradient:
activations keep the ranges that calibration found, weights take theirs anew at each step. All parameters are
trained, towards the embeddings that the fp32 network gives for the same audio. The same training serves a network in
float32, before it is quantised.
"""

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import resample_poly
from torch.fx import GraphModule
from torchao.quantization.pt2e import FakeQuantize, FixedQParamsFakeQuantize, FixedQParamsObserver
from tqdm import tqdm

from src.quantize.ptq import observers

# Scale of cosines in the softmax of `speaker_loss`; AAM-softmax recipes for speakers use 20 to 30.
SPEAKER_SCALE = 20.0
LEFT_OUT = 64  # utterances whose own prototypes are held at once
# Of the crops of each waveform, in tenths. Pitch and formants change with the speed, so that it is another voice (Yamamoto,
# Lee, Okabe and Koshinaka, "Speaker augmentation and bandwidth extension for deep speaker embedding", Interspeech 2019).
SPEEDS = (10, 9, 11)
BATCH = 16  # waveforms that are embedded at once
PROBE = 1e-5  # learning rate of the step that `unit_rate` tries
PROBED = 32  # crops that it tries it on
QUANTISED = 5e-4  # 1 - cosine: about what INT8 moves the embedding by, whatever the structure (docs/results.md)


@dataclass(frozen=True)
class Hyperparameters:
    """What the search chooses for one fine-tuning."""

    learning_rate: float
    weight_decay: float
    batch_size: int
    speaker_loss_weight: float


def fake_quantise(prepared: GraphModule, ranges: dict[str, dict]) -> GraphModule:
    """Replace the observers of `prepared`, in place, by fake quantisation; returns `prepared`.

    ranges: what `ptq.activation_ranges` gave for the same graph. All is trained.
    """
    replaced = {module: _fake(module, ranges.get(name)) for name, module in observers(prepared).items()}
    for name, module in list(prepared.named_modules(remove_duplicate=False)):
        if module in replaced:
            prepared.set_submodule(name, replaced[module])
    return prepared.requires_grad_(True)


def _fake(observer, activation_range):
    if activation_range is None:
        return FakeQuantize(observer=lambda **_: observer)
    return FakeQuantizedActivations(
        observer=FixedQParamsObserver.with_args(
            **activation_range,
            dtype=observer.dtype,
            qscheme=observer.qscheme,
            quant_min=observer.quant_min,
            quant_max=observer.quant_max,
        )
    )


class FakeQuantizedActivations(FixedQParamsFakeQuantize):
    """torchao's, bit for bit, in vectorised operations: its own kernel takes several times as long on a CPU."""

    def __init__(self, observer: Any):
        super().__init__(observer)
        fixed, zero_point = self.activation_post_process, int(self.zero_point)
        self.step, self.inverse = self.scale.item(), self.scale.reciprocal().item()
        self.ends = fixed.quant_min - zero_point, fixed.quant_max - zero_point

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The nearest levels; gradients pass straight through where there is one."""
        if not self.fake_quant_enabled[0]:
            return values
        return _NearestLevel.apply(values, self.step, self.inverse, *self.ends)


class _NearestLevel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, step: float, inverse: float, low: int, high: int) -> torch.Tensor:
        levels = (values * inverse).round_()
        nearest = levels.clamp(low, high)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(nearest != levels)
        return nearest.mul_(step)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        (outside,) = ctx.saved_tensors
        return gradient.masked_fill(outside, 0), None, None, None, None


def speaker_loss(embeddings: torch.Tensor, prototypes: torch.Tensor, speakers: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of a softmax over cosines to each speaker's prototype, scaled by SPEAKER_SCALE.

    embeddings [n, dim], prototypes [speakers, dim], speakers: int [n]. It goes on falling after every utterance is
    identified right, since it sees by how much.
    """
    cosines = F.normalize(embeddings, dim=-1) @ F.normalize(prototypes, dim=-1).T
    return F.cross_entropy(SPEAKER_SCALE * cosines, speakers)


def leave_one_out_loss(embeddings: torch.Tensor, speakers: torch.Tensor) -> torch.Tensor:
    """As `speaker_loss`, of each utterance against its own `leave_one_out` prototypes.

    Those of LEFT_OUT utterances are held at once: of all, they would grow with utterances times speakers.
    """
    cosines = [
        (F.normalize(prototypes, dim=-1) @ F.normalize(part, dim=-1).unsqueeze(-1)).squeeze(-1)
        for part, prototypes in zip(embeddings.split(LEFT_OUT), leave_one_out(embeddings, speakers))
    ]
    return F.cross_entropy(SPEAKER_SCALE * torch.cat(cosines), speakers)


def leave_one_out(embeddings: torch.Tensor, speakers: torch.Tensor) -> Iterator[torch.Tensor]:
    """Prototypes [n, speakers, dim] of length-normalised embeddings [n, dim], LEFT_OUT utterances after another: each
    speaker's mean without the utterance in question. Every speaker needs two utterances or more."""
    embeddings = F.normalize(embeddings, dim=-1)
    member = F.one_hot(speakers).to(embeddings.dtype)
    sums, counts = member.T @ embeddings, member.sum(0)
    for part, membership in zip(embeddings.split(LEFT_OUT), member.split(LEFT_OUT)):
        yield (sums - membership.unsqueeze(2) * part.unsqueeze(1)) / (counts - membership).unsqueeze(2)


@dataclass(frozen=True)
class Crops:
    """What fine-tuning sees, and what the teacher makes of it, computed once.

    features [n, frames, mels]; targets [n, dim], the teacher's embeddings; speakers, int [n], a speaker at another speed
    another one; prototypes [speakers, dim], the mean of each speaker's targets, each of length one.
    """

    features: torch.Tensor
    targets: torch.Tensor
    speakers: torch.Tensor
    prototypes: torch.Tensor


def crops(
    teacher: torch.nn.Module,
    front_end: torch.nn.Module,
    waveforms: Sequence,
    speakers: Sequence[int] | np.ndarray,
    *,
    samples: int,
    seed: int,
    device: str,
    each: int = len(SPEEDS),
) -> Crops:
    """`each` random crops, of so many samples, of every waveform, at the first of SPEEDS: float32 [n] at 16 kHz, or a
    `Waveform`; one that is too short is repeated. speakers: numbers from 0."""
    rng = np.random.default_rng(seed)
    features, targets = [], []
    cut = (_crop(waveform, samples, speed, rng) for speed in SPEEDS[:each] for waveform in waveforms)
    with torch.no_grad(), tqdm(total=each * len(waveforms), desc="teacher", disable=None, leave=False) as bar:
        while batch := list(itertools.islice(cut, BATCH)):
            features.append(front_end(torch.from_numpy(np.stack(batch)).to(device)))
            targets.append(teacher(features[-1]))
            bar.update(len(batch))
    voices = np.arange(each)[:, None] * (max(speakers) + 1) + np.asarray(speakers)
    numbers = torch.as_tensor(voices.ravel(), device=device)
    embeddings = torch.cat(targets)
    prototypes = F.one_hot(numbers).to(embeddings.dtype).T @ F.normalize(embeddings, dim=-1)
    return Crops(torch.cat(features), embeddings, numbers, prototypes)


def _crop(waveform, samples, speed, rng):
    size = math.ceil(samples * speed / 10)
    if len(waveform) < size:
        waveform = np.pad(waveform[:], (0, size - len(waveform)), mode="wrap")
    start = rng.integers(len(waveform) - size + 1)
    return resample_poly(waveform[start : start + size], 10, speed)[:samples]


def _loss(embeddings, data, indices, speaker_loss_weight):
    loss = (1 - F.cosine_similarity(embeddings, data.targets[indices])).mean()
    if speaker_loss_weight > 0:
        loss = loss + speaker_loss_weight * speaker_loss(embeddings, data.prototypes, data.speakers[indices])
    return loss


def unit_rate(network: torch.nn.Module, data: Crops, speaker_loss_weight: float) -> float:
    """The learning rate at which the first step of `finetune` moves the embeddings as far as they are from the teacher's.

    What a rate does depends on a network's width and depth, and how much it should do on what is to be made up for; in
    this unit a good rate is much the same for all (docs/search.md). network: in float32; what INT8 will move the embeddings
    by is counted too. The first step of Adam moves each weight by the rate; how far it moves the embeddings is extrapolated
    from a step at PROBE.
    """
    probed = torch.arange(min(PROBED, len(data.features)), device=data.features.device)
    stepped = copy.deepcopy(network).requires_grad_(True)
    before = stepped(data.features[probed])
    _loss(before, data, probed, speaker_loss_weight).backward()
    with torch.no_grad():
        for parameter in stepped.parameters():
            if parameter.grad is not None:
                parameter -= PROBE * parameter.grad.sign()
        moved = (1 - F.cosine_similarity(stepped(data.features[probed]), before)).mean().item()
        distance = (1 - F.cosine_similarity(before, data.targets[probed])).mean().item()
    return PROBE * math.sqrt((distance + QUANTISED) / moved)


def finetune(
    student: torch.nn.Module,
    data: Crops,
    hyperparameters: Hyperparameters,
    *,
    steps: int,
    seed: int,
    warm_up: int = 0,
    decay: tuple[float, float] = (1.0, 0.0),
    progress: str = "",
) -> float:
    """Train `student` in place, in float32 or a fake-quantised graph, towards the embeddings of the teacher.

    The loss is 1 - cosine(student, teacher) plus speaker_loss_weight * `speaker_loss` against the teacher's prototypes.
    AdamW; the learning rate rises over `warm_up` steps, and goes along a cosine between the shares `decay` of it. Every
    crop is used once before any is used again. progress: title of the bar. Gives the mean loss of the last quarter of
    the steps.
    """
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(
        student.parameters(), hyperparameters.learning_rate, weight_decay=hyperparameters.weight_decay
    )
    high, low = decay
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1, (step + 1) / (warm_up + 1)) * (low + (high - low) * (1 + math.cos(math.pi * step / steps)) / 2)
        ),
    )
    count, size = len(data.features), hyperparameters.batch_size
    order = np.concatenate([rng.permutation(count) for _ in range(math.ceil(steps * size / count))])
    losses = []
    bar = tqdm(range(steps), progress, disable=None, leave=False, unit="step")
    for step in bar:
        indices = torch.from_numpy(order[step * size : (step + 1) * size]).to(data.features.device)
        loss = _loss(student(data.features[indices]), data, indices, hyperparameters.speaker_loss_weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.4f}")
    return float(np.mean(losses[-max(1, steps // 4) :]))


def embed(
    network: torch.nn.Module, front_end: torch.nn.Module, waveforms: Iterable, device: str, batch_size: int = BATCH
) -> torch.Tensor:
    """Embeddings [n, dim] of an iterable of waveforms of equal length, of which a batch is held at once."""
    waveforms, embeddings = iter(waveforms), []
    with torch.no_grad():
        while batch := list(itertools.islice(waveforms, batch_size)):
            embeddings.append(network(front_end(torch.from_numpy(np.stack(batch)).to(device))))
        return torch.cat(embeddings)
