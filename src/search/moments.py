"""What calibration speech says of each layer: how its outputs vary, and what an error in them does to the embedding."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from src.encoder.watch import watched

FRAMES = 200  # of each utterance
THIN = 8  # outputs for each value that they are computed from
# Stays whole: its outputs are the embedding, and in which directions voices differ the few of calibration do not show.
LAST = "fc"


@dataclass(frozen=True)
class Moments:
    """Of the outputs of a layer over calibration speech, before its ReLU.

    mean [channels]; covariance [channels, channels], of a linear layer by `_linear_covariance`; sensitivity [channels,
    channels]: the mean of J'J a frame, J being the Jacobian of the embedding, scaled to length one, with respect to the
    outputs of that frame. An error e of the outputs moves the embedding by a square of about e' sensitivity e: the
    diagonal of Fisher-weighted factorisation (Hsu et al., "Language model compression with weighted low-rank
    factorization", ICLR 2022), here with all its directions.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    sensitivity: torch.Tensor

    def of(self, channels: torch.Tensor) -> "Moments":
        """Those of some of the channels, int [n], alone."""
        square = torch.meshgrid(channels, channels, indexing="ij")
        return Moments(self.mean[channels], self.covariance[square], self.sensitivity[square])


def layers(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The layers but the LAST, by name, in which every output reads every input, and which a product of two could make
    cheaper: not those that are thin already."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
        and name != LAST
        and getattr(layer, "groups", 1) == 1
        and len(layer.weight) <= THIN * layer.weight[0].numel()
    }


def measure(network: nn.Module, features: Iterable[torch.Tensor], seed: int = 0) -> dict[str, Moments]:
    """{name: Moments} of the network's `layers`.

    features: iterable of [1, time, mels], calibration speech, of which the first FRAMES frames are used; seed: of the
    random projections of the embedding whose gradients give J'J (one an utterance: E[vv'] = 1, so that E[J'vv'J] = J'J).
    """
    sums = {name: _Sums(layer) for name, layer in layers(network).items()}
    for frames in _gradients(network, list(sums), features, seed):
        for name, (read, values, gradient) in frames.items():
            sums[name].add(read, values, gradient)
    return {name: each.moments() for name, each in sums.items()}


class Components(NamedTuple):
    """Of a layer's outputs, from the one that matters most down: layer, its name; channels, the n of its outputs that
    are meant, None for all; mean [n]; onto [n, n], whose rows give the components; back [n, n], whose columns give the
    outputs from them."""

    layer: str
    channels: torch.Tensor | None
    mean: torch.Tensor
    onto: torch.Tensor
    back: torch.Tensor


def movements(
    network: nn.Module, components: Mapping[Hashable, Components], features: Sequence[torch.Tensor], seed: int = 1
) -> dict[Hashable, torch.Tensor]:
    """{key: [n + 1], the mean square by which the embedding, at length one, moves when only the first 0 to n of the
    Components are left}, to first order.

    What is left out of an utterance's frames adds up before it is squared: errors of neighbouring frames are alike, and
    as if they were independent (`Moments`) they would seem to be a half to an eighth of what they are.
    """
    squares: dict[Hashable, Any] = dict.fromkeys(components, 0.0)
    layers = sorted({each.layer for each in components.values()})
    for frames in _gradients(network, layers, features, seed):
        for key, (layer, channels, mean, onto, back) in components.items():
            values, gradient = (each if channels is None else each[:, channels] for each in frames[layer][1:])
            moved = (((values - mean) @ onto.T) * (gradient @ back)).sum(0, dtype=torch.float64)
            squares[key] += left_out(moved).square()
    return {key: total / len(features) for key, total in squares.items()}


def left_out(errors: torch.Tensor) -> torch.Tensor:
    """[n + 1], what errors [n] of components add up to when only the first 0 to n are left."""
    return F.pad(errors, (0, 1)).flip(0).cumsum(0).flip(0)


def _gradients(network, names, features, seed):
    """For each utterance, {layer: (what it reads, its outputs [frames, channels], the gradients of a random projection of
    the embedding)}."""
    if not names:
        return
    random = torch.Generator().manual_seed(seed)
    with watched(network, names) as seen:
        for utterance in tqdm(features, "moments", disable=None, leave=False):
            embedding = F.normalize(network(utterance[:, :FRAMES].detach().requires_grad_()), dim=-1)
            projection = torch.randn(embedding.shape, generator=random)
            gradients = torch.autograd.grad((embedding * projection).sum(), [seen[name].given for name in names])
            yield {
                name: (seen[name].read.detach(), _frames(seen[name].given.detach()), _frames(gradient))
                for name, gradient in zip(names, gradients)
            }


def _frames(values):
    """[1, channels, height, time] of a convolution, or [1, ..., channels] of a linear layer, -> [frames, channels]."""
    return (values.movedim(1, -1) if values.dim() == 4 else values).flatten(0, -2)


class _Sums:
    """Sums over frames of a layer's outputs, of their products, and of those of their gradients; for a linear layer also
    what it reads."""

    def __init__(self, layer):
        channels = len(layer.weight)
        self.layer, self.read = layer, []
        self.frames = 0
        self.first = torch.zeros(channels)
        self.products, self.gradients = torch.zeros(2, channels, channels)

    def add(self, read, values, gradient):
        if isinstance(self.layer, nn.Linear):
            self.read.append(read.flatten(0, -2))
        self.frames += len(values)
        self.first += values.sum(0)
        self.products.addmm_(values.T, values)
        # A gradient is the smaller, the more frames an utterance has: by how many is made up for.
        self.gradients.addmm_(gradient.T, gradient, alpha=len(values))

    def moments(self):
        mean = self.first / self.frames
        covariance = self.products / self.frames - mean[:, None] * mean
        if self.read:
            covariance = _linear_covariance(self.layer, torch.cat(self.read), covariance)
        return Moments(mean, covariance, self.gradients / self.frames)


def _linear_covariance(layer, inputs, covariance):
    """The covariance of a linear layer's outputs where that of its inputs [utterances, n] is shrunk towards a diagonal: it
    reads one vector an utterance, and few utterances show only some of the directions that others will have."""
    deviation = inputs.std(0, correction=0)
    vary = deviation > 0
    scaled = ((inputs - inputs.mean(0)) / deviation)[:, vary]
    weight = layer.weight[:, vary].detach() * deviation[vary]
    return torch.lerp(covariance, weight @ weight.T, _shrinkage(scaled.double()))


def _shrinkage(inputs: torch.Tensor) -> float:
    """The weight of the identity in the covariance of inputs [utterances, n] of mean 0 and variance 1 (Ledoit and Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 88, 2004)."""
    count, size = inputs.shape
    products = inputs @ inputs.T
    square = products.square().sum() / count**2  # of the covariance's elements
    noise = (products.diagonal().square().mean() - square) / count
    return (noise / (square - size)).nan_to_num(0).clamp(0, 1).item()
