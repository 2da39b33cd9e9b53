"""Fewer operations and weights: layers of the plain network as a product of two thinner ones.

A layer's outputs y = W x + b over calibration speech have a mean, a covariance C, and a sensitivity G: an error e of
theirs moves the embedding by about e'G e (see `moments`). With G = L L', projecting L'(y - mean) onto the first r
eigenvectors P of L'C L is the truncation to rank r that moves the embedding least (Eckart and Young, in the metric of G).
It folds into two layers: P'L' W with the layer's kernel and r outputs, and inv(L') P with a kernel of one and the
layer's own outputs, of r (inputs * kernel + outputs) multiplications a frame instead of inputs * kernel * outputs. Linear
layers, which are computed once an utterance, count for little there, and for much in bytes.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from src.encoder.networks import affine
from src.encoder.watch import watched
from src.search.moments import Moments

COLUMNS = ("layer", "components", "explained", "rank")
MULTIPLE = 16  # of a rank: engines' integer kernels work on that many channels at a time
# Of the mean sensitivity of a layer's channels, added to each: a direction in which calibration speech shows none is not
# free, and the metric can be inverted.
RIDGE = 0.01


@dataclass(frozen=True)
class Spectrum:
    """How little of a layer's outputs moves the embedding.

    mean [channels]; errors [channels], the eigenvalues, from the largest down: the mean square by which the embedding
    moves when a component is left out of one frame; onto [channels, channels], whose rows give the components; back [channels,
    channels], whose columns give the outputs from them; inputs: how many values an output is computed from.
    """

    mean: torch.Tensor
    errors: torch.Tensor
    onto: torch.Tensor
    back: torch.Tensor
    inputs: int

    @property
    def outputs(self) -> int:
        return len(self.mean)

    @property
    def size(self) -> int:
        """Multiplications at each place."""
        return self.inputs * self.outputs

    @property
    def largest_rank(self) -> int:
        """The largest rank, a multiple of MULTIPLE, at which two layers multiply less than one; 0 if none."""
        return (self.size - 1) // (self.inputs + self.outputs) // MULTIPLE * MULTIPLE

    def ranks(self) -> list[int]:
        """Everything that can be chosen; rank 0 is the layer as it is."""
        return [0, *range(MULTIPLE, self.largest_rank + 1, MULTIPLE)]


def spectrum(moments: Moments, inputs: int) -> Spectrum:
    """The Spectrum of a layer; inputs: how many values each of its outputs is computed from."""
    sensitivity = moments.sensitivity
    ridge = torch.full_like(moments.mean, RIDGE * sensitivity.diagonal().mean().item() or 1.0)
    root = torch.linalg.cholesky(sensitivity + ridge.diag())
    errors, components = torch.linalg.eigh(root.T @ moments.covariance @ root)
    components = components.flip(1)
    back = torch.linalg.solve_triangular(root.T, components, upper=True)
    return Spectrum(moments.mean, errors.flip(0).clamp(min=0), (root @ components).T, back, inputs)


class Shape(NamedTuple):
    """Of a layer. inputs: values that each output is computed from; outputs: channels; kernel: values of a channel that it
    looks at at once; positions: for how many it is computed, 1 for a linear layer."""

    inputs: int
    outputs: int
    kernel: int
    positions: int

    @property
    def multiplications(self) -> int:
        return self.inputs * self.outputs * self.positions

    def of(self, weight: torch.Tensor) -> "Shape":
        """That of a layer with the channels of this weight."""
        return self._replace(inputs=weight.shape[1] * self.kernel, outputs=len(weight))

    def product(self, rank: int) -> tuple["Shape", "Shape"]:
        """Those of the two that it becomes."""
        return self._replace(outputs=rank), self._replace(inputs=rank, kernel=1)


def shapes(network: nn.Module, frames: int) -> dict[str, Shape]:
    """{name: Shape} of every convolution and linear layer, for an utterance of so many frames. Nothing is computed."""
    network = copy.deepcopy(network).to("meta")
    weights = {
        name: layer.weight for name, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    with watched(network, weights) as seen, torch.no_grad():
        network(torch.zeros(1, frames, network.mels, device="meta"))
    return {
        name: Shape(weight[0].numel(), len(weight), weight[0, 0].numel(), seen[name].given.numel() // len(weight))
        for name, weight in weights.items()
    }


def multiplications(network: nn.Module, frames: int) -> int:
    """Multiplications of the network's layers for an utterance of so many frames."""
    return sum(shape.multiplications for shape in shapes(network, frames).values())


def rows(spectra: dict[str, Spectrum], layer_ranks: dict[str, int]) -> Iterator[tuple]:
    """For CSV, COLUMNS: for each layer, which share of what its outputs do to the embedding so many components explain,
    and the rank that was chosen (its number of outputs where it stays whole)."""
    for name, spectrum in spectra.items():
        explained = spectrum.errors.cumsum(0) / spectrum.errors.sum()
        for rank in range(MULTIPLE, spectrum.outputs + 1, MULTIPLE):
            yield name, rank, f"{explained[rank - 1].item():.6f}", layer_ranks.get(name, spectrum.outputs)


def product(layer: nn.Conv2d | nn.Linear, spectrum: Spectrum, rank: int) -> nn.Sequential:
    """The two layers, exactly the projection of the layer's outputs. The channels between them have unit variance over
    the calibration speech, so that one scale quantises all of them alike."""
    errors = spectrum.errors[:rank]
    deviations = errors.clamp(min=1e-12 * errors[0].item()).sqrt()
    onto, back = spectrum.onto[:rank] / deviations[:, None], spectrum.back[:, :rank] * deviations
    bias = torch.zeros(spectrum.outputs) if layer.bias is None else layer.bias
    weight = (onto @ layer.weight.flatten(1)).unflatten(1, layer.weight.shape[1:]).to(layer.weight.dtype)
    shift, back, mean = (each.to(weight.dtype) for each in (onto @ (bias - spectrum.mean), back, spectrum.mean))
    inner = affine.like(layer, weight, shift)
    if isinstance(layer, nn.Linear):
        return nn.Sequential(inner, affine.linear(back, mean))
    outer = nn.Conv2d(rank, layer.out_channels, 1)
    return nn.Sequential(inner, affine.filled(outer, back[:, :, None, None], mean))
