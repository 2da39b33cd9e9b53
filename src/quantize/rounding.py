"""Weights of few bits, rounded so that what a layer gives stays, not each weight.

GPTQ (Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: accurate post-training quantization for generative pre-trained
transformers", ICLR 2023): the columns of a weight are rounded one after another, and what each does to the layer's outputs is
made up for in those that follow, by least squares over what the layer reads.
"""

import copy
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from src.encoder.watch import watched
from src.quantize.quantizer import clipped, few

FRAMES = 200  # of an utterance
RIDGE = 0.01  # of the mean square of what is read, added to each
BLOCK = 64  # columns, after which those that follow are brought up to date


def rounded(network: nn.Module, features: Iterable[torch.Tensor], weight_bits: Mapping[str, int]) -> nn.Module:
    """A copy of a plain network whose weights of `few` bits are on the grid of the `ClippingObserver`; the network itself where
    there are none.

    features: calibration speech, each [1, time, mels]; weight_bits: {group of layers: bits}. Layers with groups of channels
    stay as they are.
    """
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
        and getattr(layer, "groups", 1) == 1
        and few(weight_bits.get(name.split(".")[0], 8))
    }
    if not layers:
        return network
    products = _products(network, layers, features)
    network = copy.deepcopy(network)
    for name in tqdm(layers, "rounding", disable=None, leave=False):
        layer = network.get_submodule(name)
        largest = 2 ** (weight_bits[name.split(".")[0]] - 1) - 1
        weight = layer.weight.detach()
        layer.weight = nn.Parameter(
            round_weight(weight.flatten(1), products.pop(name), largest).reshape(weight.shape),
            requires_grad=layer.weight.requires_grad,
        )
    return network


def round_weight(weight: torch.Tensor, products: torch.Tensor, largest: int) -> torch.Tensor:
    """A weight [outputs, inputs] on the grid of its rows, -largest to largest times a step; products [inputs, inputs]: mean
    products of what it is multiplied by."""
    step = clipped(weight, largest) / largest
    products = products.double()
    order = products.diagonal().argsort(descending=True, stable=True)
    left, products = weight.double()[:, order], products[order][:, order]
    products.diagonal().add_((RIDGE * products.diagonal().mean()).clamp(min=torch.finfo(torch.float32).tiny))
    # Of the inverse of the products the upper Cholesky factor: the inverse of an upper factor of the products themselves.
    upper = torch.linalg.cholesky(products.flip(0, 1)).flip(0, 1)
    factor = torch.linalg.solve_triangular(upper, torch.eye(len(upper), dtype=upper.dtype), upper=True)
    result = torch.empty_like(weight)
    for begin in range(0, left.shape[1], BLOCK):
        block = range(begin, min(begin + BLOCK, left.shape[1]))
        errors = []
        for column in block:
            levels = (left[:, column, None] / step).round().clamp(-largest, largest)
            result[:, order[column], None] = levels.float() * step
            errors.append((left[:, column, None] - levels * step) / factor[column, column])
            left[:, column : block.stop] -= errors[-1] * factor[column, column : block.stop]
        left[:, block.stop :] -= torch.cat(errors, dim=1) @ factor[block.start : block.stop, block.stop :]
    return result


def _products(network, layers, features):
    """{layer: mean products [inputs, inputs] of what each of its outputs is computed from}."""
    sums: dict = dict.fromkeys(layers, 0.0)
    counts = dict.fromkeys(layers, 0)
    with watched(network, layers) as seen, torch.no_grad():
        for utterance in tqdm(features, "inputs", disable=None, leave=False):
            network(utterance[:, :FRAMES])
            for name, layer in layers.items():
                values = _read(layer, seen[name].read)
                sums[name] = sums[name] + values.T @ values
                counts[name] += len(values)
    return {name: total / counts[name] for name, total in sums.items()}


def _read(layer, values):
    """What a layer reads -> [outputs of one channel, inputs of its flat weight]."""
    if isinstance(layer, nn.Linear):
        return values.flatten(0, -2)
    height, width = layer.padding
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    values = F.pad(values, (width, width, height, height), mode)
    columns = F.unfold(values, layer.kernel_size, layer.dilation, stride=layer.stride)
    return columns.transpose(1, 2).flatten(0, 1)
