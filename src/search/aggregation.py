"""Fewer channels of the aggregation layer, and so of attentive pooling and of the embedding's layer.

The channels that matter least to the embedding are dropped. What the layers behind them read is then predicted from the
channels that stay, by ridge regression over calibration speech, and the prediction is folded into their weights: nothing
is trained.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tqdm import tqdm

from src.encoder.networks import affine
from src.encoder.networks.ecapa import PlainEcapa
from src.encoder.watch import watched
from src.search.least_squares import Inputs, Sums
from src.search.moments import FRAMES

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # of which the one with the least leave-one-out error is taken


@dataclass(frozen=True)
class Aggregation:
    """What the aggregation layer gives over calibration speech.

    frames: what `attention.x` reads of it; context and pooled [utterances, 2 * channels], what `attention.context`, if
    there is one, and `fc` read; order: the channels, from the one that matters most to the embedding down; power: mean
    square length of the embedding.
    """

    frames: Inputs
    context: torch.Tensor | None
    pooled: torch.Tensor
    order: torch.Tensor
    power: float

    def largest(self, count: int) -> torch.Tensor:
        """The `count` channels that matter most, int [count], in the network's order."""
        return self.order[:count].sort().values


def measure(network: PlainEcapa, features: Iterable[torch.Tensor]) -> Aggregation:
    """The Aggregation of a network over calibration speech, each [1, time, mels].

    A channel matters by how much what `fc` makes of its two statistics varies over utterances.
    """
    frames, power, vectors = Sums(), [], {"fc": []}
    if network.attention.context is not None:
        vectors["attention.context"] = []
    with watched(network, ("attention.x", *vectors)) as seen, torch.no_grad():
        for utterance in tqdm(features, "aggregation", disable=None, leave=False):
            power.append(network(utterance).double().square().sum())
            frames.add(seen["attention.x"].read[..., :FRAMES])
            for name, read in vectors.items():
                read.append(seen[name].read.flatten(1).double())
    channels = network.mfa.out_channels
    joined = {name: torch.cat(read) for name, read in vectors.items()}
    pooled = joined["fc"]
    statistics = (pooled - pooled.mean(0)).unflatten(1, (2, channels))
    weights = network.fc.weight.double().unflatten(1, (2, channels))
    second = torch.einsum("uac,ubc->abc", statistics, statistics) / len(pooled)
    importance = torch.einsum("dac,dbc,abc->c", weights, weights, second)
    order = importance.argsort(descending=True, stable=True)
    return Aggregation(
        frames.inputs(), joined.get("attention.context"), pooled, order, torch.stack(power).mean().item()
    )


def reduce(network: PlainEcapa, aggregation: Aggregation, count: int) -> tuple[PlainEcapa, float]:
    """(a copy of the network with the `count` channels that matter most, by how much the regression is better on the
    utterances that it was fitted to than on others: a mean square of the embedding at length one)."""
    network = copy.deepcopy(network)
    channels = network.mfa.out_channels
    if count >= channels:
        return network, 0.0
    kept = aggregation.largest(count)
    dropped = aggregation.order[count:].sort().values
    both, rest = torch.cat([kept, kept + channels]), torch.cat([dropped, dropped + channels])
    attention, fc = network.attention, network.fc
    network.mfa = affine.like(network.mfa, network.mfa.weight[kept], network.mfa.bias[kept])
    attention.out = affine.like(attention.out, attention.out.weight[kept], None)
    weight, shift = aggregation.frames.predict(attention.x.weight, kept)
    bias = attention.x.bias
    bias = None if bias is None else (bias + shift).float()
    attention.x = affine.like(attention.x, weight.float(), bias)
    if attention.context is not None:
        attention.context, _ = _without(attention.context, aggregation.context, both, rest, shift)
    network.fc, optimism = _without(fc, aggregation.pooled, both, rest, torch.zeros(fc.out_features))
    return network, optimism / aggregation.power


def _without(linear, inputs, kept, dropped, shift):
    """(a linear layer of the kept inputs, its bias moved by `shift`; the optimism of the regression)."""
    weight = linear.weight.double()
    onto, bias, optimism = _ridge_regression(inputs[:, kept], inputs[:, dropped] @ weight[:, dropped].T)
    bias = linear.bias.double() + bias + shift
    return affine.linear((weight[:, kept] + onto).float(), bias.float()), optimism


def _ridge_regression(inputs, outputs):
    """(weight, bias, by how much the mean square error of leave-one-out is larger than that of the fit) of outputs [n, m]
    from inputs [n, k], at the RIDGES's best by leave-one-out.

    Leave-one-out in closed form (PRESS: Allen, Technometrics 16, 1974). By the n x n products of utterances, of which
    there are fewer than inputs.
    """
    mean, deviation = inputs.mean(0), inputs.std(0).nan_to_num(0).clamp(min=1e-9)
    scaled = (inputs - mean) / deviation / inputs.shape[1] ** 0.5
    target = outputs.mean(0)
    values, vectors = torch.linalg.eigh(scaled @ scaled.T)
    rotated = vectors.T @ (outputs - target)
    best = None
    for ridge in RIDGES:
        shrunk = values / (values + ridge)
        residual = outputs - target - vectors @ (shrunk[:, None] * rotated)
        leverage = (vectors.square() * shrunk).sum(1) + 1 / len(inputs)
        error = (residual / (1 - leverage).clamp(min=1e-3)[:, None]).square().sum(1).mean().item()
        if best is None or error < best[1]:
            best = ridge, error, residual.square().sum(1).mean().item()
    ridge, error, fitted = best
    weight = (
        scaled.T @ vectors @ (rotated / (values + ridge)[:, None]) / deviation[:, None] / inputs.shape[1] ** 0.5
    ).T
    return weight, target - weight @ mean, error - fitted
