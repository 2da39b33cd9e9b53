"""Fewer frames: neighbours are alike, and an embedding is of all of them together.

A network is computed at one frame in `step`. Its first convolution reads all frames and gives so many fewer; a kernel of a
later one, where a value that it looks for would lie between two frames, reads both of them: linear interpolation, folded
into its weights. Of these frames one in `stride` is pooled, since from some layer on no frame looks at another.
"""

import copy
import math
from typing import NamedTuple

from torch import nn

from src.encoder.networks import affine


class Frames(NamedTuple):
    """step: one frame in so many is computed; stride: of these, one in so many is pooled."""

    step: int
    stride: int


ALL, FEWEST = Frames(1, 1), Frames(4, 1)
# Those of all networks, and of those with a layer `pooled` (see `Kind`): never fewer than one in four.
COMPUTED = (ALL, Frames(2, 1), Frames(3, 1), FEWEST)
POOLED = (Frames(1, 2), Frames(1, 3), Frames(1, 4), Frames(2, 2))


def choices(network: nn.Module) -> tuple[Frames, ...]:
    """All that `fewer` can make of a plain network."""
    return COMPUTED + POOLED if hasattr(network, "pooled") else COMPUTED


def fewer(network: nn.Module, frames: Frames) -> nn.Module:
    """A copy of a plain network that is computed at, and pools, so many frames; time is the last dimension."""
    network = copy.deepcopy(network)
    if frames.step > 1:
        first, *others = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
        _strided(network.get_submodule(first), frames.step)
        for name in others:
            network.set_submodule(name, _resampled(network.get_submodule(name), frames.step))
    if frames.stride > 1:
        _strided(network.get_submodule(network.pooled), frames.stride)
    return network


def _strided(conv, stride):
    conv.stride = (conv.stride[0], conv.stride[1] * stride)


def _resampled(conv, step):
    """The convolution over one frame in `step`."""
    kernel, dilation, padding = conv.kernel_size[1], conv.dilation[1], conv.padding[1]
    if kernel == 1:
        return conv
    places = [(tap * dilation - padding) / step for tap in range(kernel)]
    if all(place.is_integer() for place in places):
        return affine.like(
            conv,
            conv.weight,
            conv.bias,
            padding=(conv.padding[0], padding // step),
            dilation=(conv.dilation[0], dilation // step),
        )
    first = math.floor(places[0])
    weight = conv.weight.new_zeros(*conv.weight.shape[:3], math.ceil(places[-1]) - first + 1)
    for tap, place in enumerate(places):
        before, part = math.floor(place), place % 1
        weight[..., before - first] += (1 - part) * conv.weight[..., tap]
        if part:
            weight[..., before - first + 1] += part * conv.weight[..., tap]
    return affine.like(conv, weight, conv.bias, padding=(conv.padding[0], -first), dilation=(conv.dilation[0], 1))
