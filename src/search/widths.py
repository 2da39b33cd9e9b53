"""Fewer channels inside the blocks.

Channels that are added to one another are one channel of a `Width`, and go together. Those go that move the embedding least,
by what of them the others do not say and by how far the layers that read them carry it. What these layers read of them is then
predicted from the channels that stay, by least squares over the frames of calibration speech, and the prediction is folded
into their weights: nothing is trained.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from tqdm import tqdm

from src.encoder.networks import affine
from src.encoder.watch import watched
from src.search.least_squares import Inputs, Sums
from src.search.moments import FRAMES, Moments

ROUNDS = 16  # in which channels go; after each it is seen anew what the others do not say
MULTIPLE = 4  # of the channels that stay


def measure(network: nn.Module, features: Iterable[torch.Tensor]) -> dict[str, Inputs]:
    """{layer: Inputs} of all that reads a Width of the plain network, over the first FRAMES of each of the features [1,
    time, mels]."""
    sums = {reader: Sums() for width in network.widths() for reader in width.readers}
    with watched(network, sums) as seen, torch.no_grad():
        for utterance in tqdm(features, "widths", disable=None, leave=False):
            network(utterance[:, :FRAMES])
            for reader, each in sums.items():
                each.add(seen[reader].read)
    return {reader: each.inputs() for reader, each in sums.items()}


def orders(network: nn.Module, inputs: Mapping[str, Inputs], moments: Mapping[str, Moments]) -> list[torch.Tensor]:
    """For each Width of the plain network its channels, int [channels], from the one that goes last to the one that goes
    first; inputs and moments: of the network."""
    return [_order(network, width, inputs, moments) for width in network.widths()]


def _order(network, width, inputs, moments):
    sensitivities = {}
    for name, runs in width.readers.items():
        if name in moments:
            weight = network.get_submodule(name).weight.double().flatten(2)
            sensitivity = torch.einsum("oik,op,pik->i", weight, moments[name].sensitivity.double(), weight)
            sensitivities[name] = runs, sensitivity
    left, gone = torch.arange(width.channels), []
    while len(left):
        importance = torch.zeros(len(left), dtype=torch.float64)
        for name, (runs, sensitivity) in sensitivities.items():
            read = _runs(left, width.channels, runs)
            # What the other channels do not say of one: the inverse of the diagonal of the inverse covariance.
            precision = torch.cholesky_inverse(torch.linalg.cholesky(inputs[name].of(read, read))).diagonal()
            importance += (sensitivity[read] / precision).unflatten(0, (runs, len(left))).sum(0)
        ranked = importance.argsort(stable=True)
        least = ranked[: max(1, width.channels // ROUNDS)]
        gone.append(left[least])
        left = left[ranked[len(least) :].sort().values]
    return torch.cat(gone).flip(0)


def reduce(network: nn.Module, inputs: Mapping[str, Inputs], orders: Sequence[torch.Tensor], share: float) -> nn.Module:
    """A copy of the plain network with about this share of the channels of each of its Widths; inputs and orders: of the
    network."""
    reduced = copy.deepcopy(network)
    for width, order in zip(network.widths(), orders):
        count = max(1, round(width.channels * share / MULTIPLE)) * MULTIPLE
        channels = order[:count].sort().values
        for name, runs in width.outputs.items():
            _slice(reduced, name, _runs(channels, width.channels, runs))
        for name, runs in width.readers.items():
            _read(reduced, name, _runs(channels, width.channels, runs), inputs[name])
    return reduced


def _runs(channels, size, runs):
    """The same channels of each of so many runs of `size`."""
    return (torch.arange(runs)[:, None] * size + channels).flatten()


def _slice(network, name, kept):
    """Only these of the outputs of a layer, or of the elements of a buffer."""
    owner, _, own = name.rpartition(".")
    owner, each = network.get_submodule(owner), getattr(network.get_submodule(owner), own)
    if isinstance(each, nn.Module):
        bias = None if each.bias is None else each.bias[kept]
        network.set_submodule(name, affine.like(each, each.weight[kept], bias))
    else:
        setattr(owner, own, each[kept])


def _read(network, name, kept, inputs):
    """A layer that reads only these, and predicts the others."""
    layer = network.get_submodule(name)
    weight, bias = inputs.predict(layer.weight, kept)
    if layer.bias is not None:
        bias = bias + layer.bias
    network.set_submodule(name, affine.like(layer, weight.to(layer.weight.dtype), bias.to(layer.weight.dtype)))
