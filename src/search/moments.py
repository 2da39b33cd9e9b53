"""What calibration speech says of each convolution: how its outputs vary, and what an error in them does to the embedding."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

FRAMES = 200  # of each utterance
THIN = 8  # outputs for each value that they are computed from


@dataclass(frozen=True)
class Moments:
    """Of the outputs of a convolution over calibration speech, before its ReLU.

    mean [channels]; covariance [channels, channels]; sensitivity [channels, channels]: the mean of J'J a frame, J being
    the Jacobian of the embedding, scaled to length one, with respect to the outputs of that frame. An error e of the
    outputs moves the embedding by a square of about e' sensitivity e: the diagonal of Fisher-weighted factorisation (Hsu
    et al., "Language model compression with weighted low-rank factorization", ICLR 2022), here with all its directions.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    sensitivity: torch.Tensor

    def of(self, channels: torch.Tensor) -> "Moments":
        """Those of some of the channels, int [n], alone."""
        square = torch.meshgrid(channels, channels, indexing="ij")
        return Moments(self.mean[channels], self.covariance[square], self.sensitivity[square])


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions, by name, in which every output reads every input, and which a product of two could make
    cheaper: not those that are thin already."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.out_channels <= THIN * layer.weight[0].numel()
    }


def measure(network: nn.Module, features: Iterable[torch.Tensor], seed: int = 0) -> dict[str, Moments]:
    """{name: Moments} of the network's `convolutions`.

    features: iterable of [1, time, mels], calibration speech, of which the first FRAMES frames are used; seed: of the
    random projections of the embedding whose gradients give J'J (one an utterance: E[vv'] = 1, so that E[J'vv'J] = J'J).
    """
    sums = {name: _Sums(layer.out_channels) for name, layer in convolutions(network).items()}
    for frames in _gradients(network, list(sums), features, seed):
        for name, (values, gradient) in frames.items():
            sums[name].add(values, gradient)
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
            values, gradient = (each if channels is None else each[:, channels] for each in frames[layer])
            moved = (((values - mean) @ onto.T) * (gradient @ back)).sum(0, dtype=torch.float64)
            squares[key] += F.pad(moved, (0, 1)).flip(0).cumsum(0).flip(0).square()
    return {key: total / len(features) for key, total in squares.items()}


def _gradients(network, names, features, seed):
    """For each utterance, {layer: (its outputs [frames, channels], the gradients of a random projection of the
    embedding)}."""
    outputs: dict[str, torch.Tensor] = {}
    hooks = [network.get_submodule(name).register_forward_hook(_keep(outputs, name)) for name in names]
    random = torch.Generator().manual_seed(seed)
    try:
        for utterance in tqdm(features, "moments", disable=None, leave=False):
            embedding = F.normalize(network(utterance[:, :FRAMES].detach().requires_grad_()), dim=-1)
            projection = torch.randn(embedding.shape, generator=random)
            gradients = torch.autograd.grad((embedding * projection).sum(), [outputs[name] for name in names])
            yield {
                name: (_frames(outputs[name].detach()), _frames(gradient)) for name, gradient in zip(names, gradients)
            }
    finally:
        for hook in hooks:
            hook.remove()


def _keep(outputs, name):
    def hook(_module, _inputs, output):
        outputs[name] = output

    return hook


def _frames(values):
    """[1, channels, height, time] -> [frames, channels]."""
    return values.movedim(1, -1).flatten(0, -2)


class _Sums:
    """Sums over frames of a layer's outputs, of their products, and of those of their gradients."""

    def __init__(self, channels):
        self.frames = 0
        self.first = torch.zeros(channels)
        self.products, self.gradients = torch.zeros(2, channels, channels)

    def add(self, values, gradient):
        self.frames += len(values)
        self.first += values.sum(0)
        self.products.addmm_(values.T, values)
        # A gradient is the smaller, the more frames an utterance has: by how many is made up for.
        self.gradients.addmm_(gradient.T, gradient, alpha=len(values))

    def moments(self):
        mean = self.first / self.frames
        covariance = self.products / self.frames - mean[:, None] * mean
        return Moments(mean, covariance, self.gradients / self.frames)
