"""The algebra of the exact rewrite: what BatchNorm leaves of itself, and where it goes.

In eval mode BatchNorm is `a * r + c` for each channel. Where r is the output of an activation that is positively
homogeneous, f(s x) = s f(x) for s > 0, as ReLU and LeakyReLU are, |a| moves back through it into the convolution before.
What is left is `sign * r + offset`, and the consumers take both: a convolution multiplies its weights by the signs and
adds its response to the constant `offset` to its bias, which is exact where padding keeps a constant constant, as that
by reflection does. Sums and concatenations pass signs and offsets on.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn


class Affine(NamedTuple):
    """A tensor that stands for `sign * tensor + offset`, for each channel."""

    sign: torch.Tensor
    offset: torch.Tensor

    @staticmethod
    def identity(channels: int) -> "Affine":
        return Affine(torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64))

    @staticmethod
    def concat(parts: Sequence["Affine"]) -> "Affine":
        return Affine(torch.cat([p.sign for p in parts]), torch.cat([p.offset for p in parts]))

    def chunk(self, parts: int) -> list["Affine"]:
        return [Affine(*pair) for pair in zip(self.sign.chunk(parts), self.offset.chunk(parts))]


def weights(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of one of torch's layers in float64; a bias of zeros where it has none."""
    weight = layer.weight.double().cpu()
    return weight, torch.zeros(len(weight)).double() if layer.bias is None else layer.bias.double().cpu()


def batch_norm(norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and the shift that one of torch's BatchNorms applies in eval mode, in float64."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale.cpu(), (norm.bias.double() - scale * norm.running_mean.double()).cpu()


def fold(weight: torch.Tensor, bias: torch.Tensor, x: Affine) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and bias of a layer for the tensor itself, from those for `x`, what it stands for.

    weight [outputs, inputs of a group, *kernel].
    """
    groups = len(x.sign) // weight.shape[1]
    by_group = weight.flatten(2).unflatten(0, (groups, -1))
    sign, offset = (v.view(groups, 1, -1, 1) for v in x)
    return (by_group * sign).view_as(weight), bias + (by_group * offset).sum(dim=(2, 3)).flatten()


def before_norm(weight: torch.Tensor, bias: torch.Tensor, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and bias of a layer and the BatchNorm right behind it, as one."""
    scale, shift = batch_norm(norm)
    return _by_output(weight, scale), bias * scale + shift


def tdnn(conv: nn.Conv1d, norm: Any, x: Affine) -> tuple[nn.Conv2d, Affine]:
    """The convolution of convolution -> activation -> BatchNorm whose input stands for `x`, and what the output of
    the positively homogeneous activation behind it stands for."""
    weight, bias = fold(*weights(conv), x)
    scale, shift = batch_norm(norm)
    return one_high(conv, _by_output(weight, scale.abs()), bias * scale.abs()), Affine(sign(scale), shift)


def _by_output(weight, scale):
    return weight * scale.view(-1, *[1] * (weight.dim() - 1))


def one_high(like: nn.Conv1d, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Conv2d:
    """An nn.Conv2d over [batch, channels, 1, time] with these weights, which pads by reflection, as SpeechBrain's "same"
    does, and is otherwise as `like`."""
    (kernel,), (dilation,) = like.kernel_size, like.dilation
    padding = dilation * (kernel - 1) // 2
    groups = like.groups
    conv = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (1, kernel),
        dilation=(1, dilation),
        groups=groups,
        padding=(0, padding),
        padding_mode="reflect" if padding else "zeros",
        bias=bias is not None,
    )
    return filled(conv, weight.unsqueeze(2), bias)


def linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """An nn.Linear with these weights."""
    return filled(nn.Linear(weight.shape[1], weight.shape[0]), weight, bias)


def like(layer: nn.Conv2d | nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None, **options: Any) -> nn.Module:
    """A layer with these weights and this bias, as many channels as they have, and otherwise as `layer`, but for options,
    nn.Conv2d's."""
    if isinstance(layer, nn.Linear):
        return filled(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None), weight, bias)
    names = ("stride", "padding", "dilation", "groups", "padding_mode")
    options = {name: getattr(layer, name) for name in names} | options
    outputs, inputs, *kernel = weight.shape
    conv = nn.Conv2d(inputs * layer.groups, outputs, tuple(kernel), bias=bias is not None, **options)
    return filled(conv, weight, bias)


def filled(module: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """The module, with copies of these weights and, unless it is None, of this bias: training changes nothing else."""
    module.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
    if bias is not None:
        module.bias = nn.Parameter(bias.clone(memory_format=torch.contiguous_format))
    return module


def sign(scale: torch.Tensor) -> torch.Tensor:
    """-1 where negative, else 1, in float64."""
    return torch.where(scale < 0, -1.0, 1.0).double()


def unless_one(sign: torch.Tensor) -> torch.Tensor | None:
    """The signs, or None where all are positive, so that nothing has to be multiplied."""
    return None if bool((sign > 0).all()) else sign


def vector(x: torch.Tensor) -> torch.Tensor:
    """[batch, channels, 1, 1] -> [batch, 1, channels]."""
    return x.flatten(2).transpose(1, 2)


def channels(vector: torch.Tensor) -> torch.Tensor:
    """[batch, 1, channels] -> [batch, channels, 1, 1]."""
    return vector.transpose(1, 2).unsqueeze(3)
