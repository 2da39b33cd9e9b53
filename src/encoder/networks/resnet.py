"""ResNet without BatchNorm, over maps of mels and frames.

Its blocks are pre-activated: BatchNorm -> ReLU -> convolution, where the sum before goes past them too. A BatchNorm
right behind a convolution becomes part of it. One behind a sum becomes a convolution of its own, of kernel 1 with each
channel a group: engines run that, and its ReLU, on integers in one pass.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from src.encoder.networks import affine, pooling
from src.encoder.networks.affine import channels, vector
from src.encoder.networks.kind import Channels, Kind, NetworkArguments, Small, Width, check_activations

VARIANCE_FLOOR = 1e-5  # SpeechBrain's


class PlainResNet(nn.Module):
    """features [batch, time, mels] -> embedding [batch, dim]; maps are [batch, channels, mels, time]."""

    def __init__(
        self, layer0: nn.Conv2d, blocks: nn.ModuleDict, attention: "AttentivePooling", fc: nn.Linear, mels: int
    ):
        super().__init__()
        self.layer0 = layer0
        self.blocks = blocks
        self.attention = attention
        self.fc = fc
        self.mels = mels

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(features))

    def trunk(self, features: torch.Tensor) -> torch.Tensor:
        """The map that is pooled."""
        x = F.relu(self.layer0(features.transpose(1, 2).unsqueeze(1)))
        for block in self.blocks.values():
            x = block(x)
        return x

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """The embedding, from what `trunk` gives."""
        return self.fc(self.attention(x)).squeeze(1)

    def widths(self) -> list[Width]:
        """None: what its blocks add to one another goes through shortcuts."""
        return []


class PlainBlock(nn.Module):
    """BasicBlock, or, where there are se1 and se2, SEBasicBlock."""

    def __init__(
        self,
        norm: nn.Conv2d,
        conv1: nn.Conv2d,
        conv2: nn.Conv2d,
        conv3: nn.Conv2d,
        se1: nn.Linear | None,
        se2: nn.Linear | None,
        shortcut: nn.Conv2d | None,
    ):
        super().__init__()
        self.norm = norm
        self.conv1 = conv1
        self.conv2 = conv2
        self.conv3 = conv3
        self.se1 = se1
        self.se2 = se2
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.conv1(F.relu(self.norm(x))))
        x = self.conv3(F.relu(self.conv2(x)))
        if self.se1 is not None and self.se2 is not None:
            gate = torch.sigmoid(self.se2(F.relu(self.se1(vector(x.mean(dim=(2, 3), keepdim=True))))))
            x = x * channels(gate)
        return x + residual


class AttentivePooling(nn.Module):
    """[batch, channels, mels, time] -> mean and deviation over time [batch, 1, 2 * channels * mels].

    `x` sees all mels at once: a kernel as high as the map is SpeechBrain's convolution over channels and mels as one.
    """

    def __init__(self, x: nn.Conv2d, out: nn.Conv2d):
        super().__init__()
        self.x = x
        self.out = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.out(F.relu(self.x(x)))
        return pooling.statistics(*pooling.attentive_moments(logits, x.flatten(1, 2).unsqueeze(2)), VARIANCE_FLOOR)


class _Arguments(NetworkArguments):
    activation: Literal["torch.nn.ReLU"] = "torch.nn.ReLU"
    input_size: int = Field(80, ge=1, le=512)
    channels: list[Channels] = Field([128, 128, 256, 256], min_length=4, max_length=4)
    block_sizes: list[Small] = Field([3, 4, 6, 3], min_length=4, max_length=4)
    strides: list[Small] = Field([1, 2, 2, 2], min_length=4, max_length=4)
    lin_neurons: Channels = 256


def _check(model: Any, where: str) -> None:
    named = dict(model.named_modules())
    activations = [(name, named[name]) for name in named if name.endswith(("activation", "activation1"))]
    check_activations(activations, (nn.ReLU,), where)


def _rewrite(model: Any, mels: int | None) -> PlainResNet:
    if mels is None:
        raise ValueError("a ResNet does not keep its number of mels")
    blocks = [block for layer in (model.layer1, model.layer2, model.layer3, model.layer4) for block in layer]
    weight, bias = affine.weights(model.fc_embed)
    scale, shift = affine.batch_norm(model.norm_stats)
    fc = affine.linear(*affine.before_norm(weight * scale, bias + weight @ shift, model.norm_embed))
    return PlainResNet(
        _convolution(model.conv1, model.bn1),
        nn.ModuleDict({str(i): _block(block) for i, block in enumerate(blocks, start=1)}),
        _attention(model.attention, blocks[-1].conv3.out_channels),
        fc,
        mels,
    )


def _block(block):
    return PlainBlock(
        _norm(block.bn1),
        _convolution(block.conv1, block.bn2),
        _convolution(block.conv2, block.bn3),
        _transposed(block.conv3, *affine.weights(block.conv3)),
        *((_linear(block.se.fc[0]), _linear(block.se.fc[2])) if hasattr(block, "se") else (None, None)),
        None if block.downsample is None else _convolution(*block.downsample),
    )


def _attention(attention, width):
    hidden, _, norm, out, _ = attention
    height = hidden.in_channels // width
    # |scale| of the BatchNorm behind the ReLU moves back, its sign on. Its shift, and the bias of what follows, are
    # constant in each channel: they change no softmax over time.
    (weight, bias), (scale, _) = affine.weights(hidden), affine.batch_norm(norm)
    weight = (weight * scale.abs()[:, None, None]).view(-1, width, height, 1)
    x = affine.filled(nn.Conv2d(width, len(weight), (height, 1)), weight, bias * scale.abs())
    weight = (affine.weights(out)[0] * affine.sign(scale)[:, None]).unsqueeze(2)
    return AttentivePooling(x, affine.filled(nn.Conv2d(out.in_channels, len(weight), 1, bias=False), weight, None))


def _convolution(conv, norm):
    """The convolution with the BatchNorm behind it."""
    return _transposed(conv, *affine.before_norm(*affine.weights(conv), norm))


def _norm(norm):
    """The BatchNorm as a convolution."""
    scale, shift = affine.batch_norm(norm)
    conv = nn.Conv2d(len(scale), len(scale), 1, groups=len(scale))
    return affine.filled(conv, scale[:, None, None, None], shift)


def _transposed(like, weight, bias):
    """An nn.Conv2d with these weights and otherwise as `like`, over [mels, time] where that is over [time, mels]."""
    flipped = [pair[::-1] for pair in (like.kernel_size, like.stride, like.padding)]
    return affine.filled(nn.Conv2d(like.in_channels, like.out_channels, *flipped), weight.transpose(2, 3), bias)


def _linear(layer):
    return affine.linear(*affine.weights(layer))


KIND = Kind(
    name="resnet",
    title="ResNet",
    path="speechbrain.lobes.models.ResNet.ResNet",
    arguments=_Arguments,
    mels="input_size",
    check=_check,
    rewrite=_rewrite,
)
