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

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # of which the one with the least leave-one-out error is taken
FRAME_RIDGE = 1e-4  # of the mean variance of a channel: there are many times as many frames as channels


@dataclass(frozen=True)
class Aggregation:
    """What the aggregation layer gives over calibration speech.

    mean [channels] and covariance [channels, channels] over frames, after its ReLU; context and pooled [utterances, 2 *
    channels], what `attention.context` and `fc` read; order: the channels, from the one that matters most to the
    embedding down; power: mean square length of the embedding.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    context: torch.Tensor
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
    inputs: dict[str, list[torch.Tensor]] = {"attention": [], "attention.context": [], "fc": []}
    channels = network.mfa.out_channels
    first, products, frames, power = torch.zeros(channels), torch.zeros(channels, channels), 0, []
    hooks = [
        network.get_submodule(name).register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0]))
        for name, kept in inputs.items()
    ]
    try:
        with torch.no_grad():
            for utterance in tqdm(features, "aggregation", disable=None, leave=False):
                power.append(network(utterance).double().square().sum())
                values = inputs["attention"].pop()[0, :, 0].T
                first, frames = first + values.sum(0), frames + len(values)
                products.addmm_(values.T, values)
    finally:
        for hook in hooks:
            hook.remove()
    mean = first / frames
    context, pooled = (torch.cat(inputs[name]).flatten(1).double() for name in ("attention.context", "fc"))
    statistics = (pooled - pooled.mean(0)).unflatten(1, (2, channels))
    weights = network.fc.weight.double().unflatten(1, (2, channels))
    second = torch.einsum("uac,ubc->abc", statistics, statistics) / len(pooled)
    importance = torch.einsum("dac,dbc,abc->c", weights, weights, second)
    order = importance.argsort(descending=True, stable=True)
    covariance = (products / frames - mean[:, None] * mean).double()
    return Aggregation(mean.double(), covariance, context, pooled, order, torch.stack(power).mean().item())


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
    weight = attention.x.weight.double().flatten(1)
    covariance = aggregation.covariance[kept][:, kept]
    covariance.diagonal().add_(FRAME_RIDGE * covariance.diagonal().mean())
    onto = torch.linalg.solve(covariance, aggregation.covariance[kept][:, dropped] @ weight[:, dropped].T).T
    shift = weight[:, dropped] @ aggregation.mean[dropped] - onto @ aggregation.mean[kept]
    bias = attention.x.bias
    bias = None if bias is None else (bias + shift).float()
    attention.x = affine.like(attention.x, (weight[:, kept] + onto)[:, :, None, None].float(), bias)
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
