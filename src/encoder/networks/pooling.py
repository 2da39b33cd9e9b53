"""Statistics over time, of a part of the channels at a time: its arrays stay in the cache of a core."""

import math

import torch

from src.encoder.networks.affine import vector

PART = 512  # channels
AXIS = {"dim": 3, "keepdim": True}  # of [batch, channels, 1, time]


def parts(x: torch.Tensor) -> list[torch.Tensor]:
    """[batch, channels, 1, time] in parts of the channels, of about the same size."""
    count = math.ceil(x.shape[1] / PART)
    return list(x.chunk(count, dim=1)) if count > 1 else [x]


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance over time [batch, channels, 1, 1] of x [batch, channels, 1, time]."""
    means = [part.mean(**AXIS) for part in parts(x)]
    return _variance(means, [(part * part).mean(**AXIS) for part in parts(x)])


def attentive_moments(logits: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`moments`, in which each channel weighs its frames by the softmax over time of its logits, of the same shape."""
    means, squares = [], []
    for logit, part in zip(parts(logits), parts(x)):
        weighted = logit.softmax(dim=3) * part
        means.append(weighted.sum(**AXIS))
        squares.append((weighted * part).sum(**AXIS))
    return _variance(means, squares)


def _variance(means, squares):
    """(mean, variance), from the means of x and of its square, by parts."""
    mean, square = torch.cat(means, dim=1), torch.cat(squares, dim=1)
    return mean, square - mean * mean


def statistics(mean: torch.Tensor, variance: torch.Tensor, floor: float) -> torch.Tensor:
    """Mean and standard deviation [batch, 1, 2 * channels] from mean and variance [batch, channels, 1, 1]; floor: of the
    variance."""
    return vector(torch.cat([mean, variance.clamp(min=floor).sqrt()], dim=1))
