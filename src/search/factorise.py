"""Fewer operations: large 1x1 convolutions of the plain network as a product of two thinner ones.

A layer's outputs y = W x + b over calibration speech have a mean and a covariance with eigenvectors P, by
falling eigenvalue. Projecting y - mean onto the first r of them is the truncation to rank r that loses least
in mean square over that speech (Eckart and Young; a plain SVD of W would be that for white inputs). It folds
into two convolutions, P' W with r outputs and P with the layer's own, of r (inputs + outputs) multiplications
a frame instead of inputs * outputs.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

COLUMNS = ("layer", "components", "explained", "rank")
MULTIPLE = 16  # of a rank: engines' integer kernels work on that many channels at a time


@dataclass(frozen=True)
class Spectrum:
    """The outputs of a 1x1 convolution over calibration speech, before its ReLU.

    mean [channels]; variances [channels], the eigenvalues of the covariance from the largest down; components
    [channels, channels], their eigenvectors as columns; inputs: how many channels the layer reads.
    """

    mean: torch.Tensor
    variances: torch.Tensor
    components: torch.Tensor
    inputs: int

    @property
    def outputs(self) -> int:
        return len(self.mean)

    @property
    def largest_rank(self) -> int:
        """The largest rank, a multiple of MULTIPLE, at which two layers multiply less than one; 0 if none."""
        return (self.inputs * self.outputs - 1) // (self.inputs + self.outputs) // MULTIPLE * MULTIPLE


def spectra(network: nn.Module, features: Iterable[torch.Tensor]) -> dict[str, Spectrum]:
    """{name: Spectrum} of every 1x1 convolution of a PlainEcapa that a factorisation can make cheaper.

    features: iterable of [1, time, mels], calibration speech.
    """
    layers = {name: module for name, module in network.named_modules() if _is_pointwise(module)}
    sums = {name: _Sums(module.out_channels) for name, module in layers.items()}
    hooks = [module.register_forward_hook(sums[name]) for name, module in layers.items()]
    try:
        with torch.no_grad():
            for utterance in tqdm(features, "spectra", disable=None):
                network(utterance)
    finally:
        for hook in hooks:
            hook.remove()
    measured = {name: sums[name].spectrum(module.in_channels) for name, module in layers.items()}
    return {name: spectrum for name, spectrum in measured.items() if spectrum.largest_rank}


def layer_ranks(spectra: dict[str, Spectrum], network: nn.Module, share: float) -> dict[str, int]:
    """{layer: rank} that leave at most `share` of the network's multiplications; layers that stay whole are not
    in it.

    spectra: what the function of that name gave for `network`. Every layer loses a share of its output's variance, and the sum of
    these is the least for the multiplications that are left (by Lagrange: each layer weighs its loss against
    one price for a multiplication). Gives the least that can be had where `share` is out of reach.
    """
    options = {name: list(_options(spectrum)) for name, spectrum in spectra.items()}
    rest = multiplications(network) - sum(spectrum.inputs * spectrum.outputs for spectrum in spectra.values())

    def choose(price):
        return {
            name: min(candidates, key=lambda option: option[1] + price * option[2])
            for name, candidates in options.items()
        }

    low, high = -30.0, 0.0  # logarithms of the price
    for _ in range(50):
        middle = (low + high) / 2
        left = rest + sum(macs for _, _, macs in choose(math.exp(middle)).values())
        low, high = (low, middle) if left <= share * multiplications(network) else (middle, high)
    return {name: rank for name, (rank, _, _) in choose(math.exp(high)).items() if rank}


def _options(spectrum):
    """(rank, share of the variance that is lost, multiplications a frame); rank 0 is the layer as it is."""
    yield 0, 0.0, spectrum.inputs * spectrum.outputs
    total = spectrum.variances.sum()
    for rank in range(MULTIPLE, spectrum.largest_rank + 1, MULTIPLE):
        lost = (spectrum.variances[rank:].sum() / total).item()
        yield rank, lost, rank * (spectrum.inputs + spectrum.outputs)


def multiplications(network: nn.Module) -> int:
    """Multiplications of the network's convolutions for each frame; the linear layers' are once an utterance."""
    return sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Conv2d))


def rows(spectra: dict[str, Spectrum], layer_ranks: dict[str, int]) -> Iterator[tuple]:
    """For CSV, COLUMNS: for each layer, which share of its output's variance so many components explain, and
    the rank that was chosen (its number of outputs where it stays whole)."""
    for name, spectrum in spectra.items():
        explained = spectrum.variances.cumsum(0) / spectrum.variances.sum()
        for rank in range(MULTIPLE, spectrum.outputs + 1, MULTIPLE):
            yield name, rank, f"{explained[rank - 1].item():.6f}", layer_ranks.get(name, spectrum.outputs)


def factorise(network: nn.Module, spectra: dict[str, Spectrum], layer_ranks: dict[str, int]) -> nn.Module:
    """A copy of a PlainEcapa with these layers as products of two, exactly their projection.

    spectra: what the function of that name gave; layer_ranks: {layer: rank}. The channels between the two have unit variance over the
    calibration speech, so that one scale quantises all of them alike.
    """
    network = copy.deepcopy(network)
    for name, rank in layer_ranks.items():
        network.set_submodule(name, _product(network.get_submodule(name), spectra[name], rank))
    return network


def _product(conv, spectrum, rank):
    variances = spectrum.variances[:rank]
    deviations = variances.clamp(min=1e-12 * spectrum.variances[0].item()).sqrt()
    components = spectrum.components[:, :rank]
    weight = conv.weight.double().flatten(1)
    bias = torch.zeros(conv.out_channels, dtype=torch.float64) if conv.bias is None else conv.bias.double()
    inner = nn.Conv2d(conv.in_channels, rank, 1)
    outer = nn.Conv2d(rank, conv.out_channels, 1)
    onto = components.T / deviations[:, None]
    for layer, matrix, shift in (
        (inner, onto @ weight, onto @ (bias - spectrum.mean)),
        (outer, components * deviations, spectrum.mean),
    ):
        layer.weight = nn.Parameter(matrix[:, :, None, None].to(conv.weight.dtype).contiguous())
        layer.bias = nn.Parameter(shift.to(conv.weight.dtype))
    return nn.Sequential(inner, outer)


def _is_pointwise(module):
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


class _Sums:
    """First and second moments of a layer's outputs, gathered as a forward hook."""

    def __init__(self, channels):
        self.frames = 0
        self.first = torch.zeros(channels, dtype=torch.float64)
        self.second = torch.zeros(channels, channels, dtype=torch.float64)

    def __call__(self, module, inputs, output):
        frames = output.squeeze(2).transpose(1, 2).flatten(0, 1)
        self.frames += len(frames)
        self.first += frames.double().sum(0)
        self.second += (frames.T @ frames).double()

    def spectrum(self, inputs):
        mean = self.first / self.frames
        variances, components = torch.linalg.eigh(self.second / self.frames - mean[:, None] * mean)
        return Spectrum(mean, variances.flip(0).clamp(min=0), components.flip(1), inputs)
