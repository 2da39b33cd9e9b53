"""x-vector without BatchNorm: TDNN layers, mean and deviation over time, one linear layer.

A layer is conv -> LeakyReLU (or ReLU) -> BatchNorm: signs and offsets move as `affine` says, and none is left to be
multiplied at run time. SpeechBrain's pooling adds noise of some 1e-5 to the mean, which is not reproduced.
"""

import itertools
from types import MethodType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from src.encoder.networks import affine, pooling
from src.encoder.networks.affine import Affine
from src.encoder.networks.kind import Channels, Kind, NetworkArguments, Small, Width, check_activations

# Below what float32 tells from a constant, but not 0, where the root has no gradient.
VARIANCE_FLOOR = 1e-20
_LAYER = 3  # modules of SpeechBrain's list that a TDNN layer is: convolution, activation, BatchNorm


class PlainXvector(nn.Module):
    """features [batch, time, mels] -> embedding [batch, dim].

    `nn.Conv2d` over [batch, channels, 1, time], as in PlainEcapa. layer0 is the first TDNN layer, mfa the last, the
    widest, which the statistics are of. slope: of the LeakyReLU, 0 for ReLU. Raises RuntimeError, as SpeechBrain does,
    when the utterance has too few frames to pad by reflection.

    pooled: the layer from which on no frame looks at another before the pooling.
    """

    def __init__(self, layer0: nn.Conv2d, blocks: nn.ModuleDict, mfa: nn.Conv2d | None, fc: nn.Linear, slope: float):
        super().__init__()
        self.mels = layer0.in_channels
        self.layer0 = layer0
        self.blocks = blocks
        self.mfa = mfa
        self.fc = fc
        self.slope = slope
        self._names = ["layer0", *(f"blocks.{name}" for name in blocks), *(["mfa"] if mfa is not None else [])]
        names = self._names.copy()
        while self.get_submodule(names[-1]).kernel_size == (1, 1) and len(names) > 1:
            names.pop()
        self.pooled = names[-1]
        self._before = len(names) - 1  # layers before it

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(features))

    def trunk(self, features: torch.Tensor) -> torch.Tensor:
        """What the layer `pooled` reads."""
        x = features.transpose(1, 2).unsqueeze(2)
        for layer in self._layers()[: self._before]:
            x = self._activation(layer(x))
        return x

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """The embedding, from what `trunk` gives."""
        for layer in self._layers()[self._before :]:
            x = self._activation(layer(x))
        mean = x.mean(dim=3, keepdim=True)
        deviation = x - mean
        # Of a sample, as torch.std: by the number of frames less one.
        variance = (deviation * deviation).sum(dim=3, keepdim=True) / (x.shape[3] - 1)
        return self.fc(pooling.statistics(mean, variance, VARIANCE_FLOOR)).squeeze(1)

    def widths(self) -> list[Width]:
        """The outputs of every layer that another one reads."""
        return [
            Width(self.get_submodule(name).out_channels, {name: 1}, {reader: 1})
            for name, reader in itertools.pairwise(self._names)
        ]

    def _layers(self):
        return [self.get_submodule(name) for name in self._names]

    def _activation(self, x):
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


class _Arguments(NetworkArguments):
    activation: Literal["torch.nn.ReLU", "torch.nn.LeakyReLU"] = "torch.nn.LeakyReLU"
    in_channels: int = Field(40, ge=1, le=512)
    tdnn_blocks: int = Field(5, ge=1, le=32)
    tdnn_channels: list[Channels] = Field([512, 512, 512, 512, 1500], min_length=1, max_length=32)
    tdnn_kernel_sizes: list[Small] = Field([5, 3, 3, 1, 1], min_length=1, max_length=32)
    tdnn_dilations: list[Small] = Field([1, 2, 3, 1, 1], min_length=1, max_length=32)
    lin_neurons: Channels = 512

    @model_validator(mode="after")
    def consistent(self) -> "_Arguments":
        for name in ("tdnn_channels", "tdnn_kernel_sizes", "tdnn_dilations"):
            if len(getattr(self, name)) < self.tdnn_blocks:
                raise ValueError(f"{name} has fewer values than tdnn_blocks ({self.tdnn_blocks})")
        return self


def _check(model: Any, where: str) -> None:
    activations = [(f"blocks.{i}", model.blocks[i]) for i in range(1, len(model.blocks) - 2, _LAYER)]
    check_activations(activations, (nn.ReLU, nn.LeakyReLU), where)


def _rewrite(model: Any, mels: int | None) -> PlainXvector:
    *layers, pooling, last = model.blocks
    x, convolutions = Affine.identity(layers[0].conv.in_channels), {}
    for i in range(0, len(layers), _LAYER):
        convolutions[str(i // _LAYER)], x = affine.tdnn(layers[i].conv, layers[i + 2].norm, x)
    # sign * r + offset deviates as r does; SpeechBrain adds eps to the deviation.
    deviation = Affine.identity(len(x.sign))._replace(offset=torch.full_like(x.sign, pooling.eps))
    weight, bias = affine.weights(last.w)
    weight, bias = affine.fold(weight[:, :, None], bias, Affine.concat([x, deviation]))
    numbers = list(convolutions)
    return PlainXvector(
        convolutions[numbers[0]],
        nn.ModuleDict({number: convolutions[number] for number in numbers[1:-1]}),
        convolutions[numbers[-1]] if len(numbers) > 1 else None,
        affine.linear(weight.squeeze(2), bias),
        getattr(layers[1], "negative_slope", 0.0),
    )


def settle(model: Any) -> None:
    """Make a SpeechBrain network that is an Xvector repeat, and let tracers follow it; any other is left alone.

    Off goes the noise that its pooling adds, of which a comparison would see just chance. And it offers lengths to every
    layer and catches the refusals, which no tracer follows: now only the pooling, which takes them, gets them.
    """
    if f"{type(model).__module__}.{type(model).__qualname__}" == KIND.path:
        model.forward = MethodType(_forward, model)
        model.blocks[-2]._get_gauss_noise = _no_noise


def _forward(model, x, lens=None):
    *layers, pooling, last = model.blocks
    for layer in layers:
        x = layer(x)
    return last(pooling(x, lengths=lens))


def _no_noise(shape_of_tensor, device="cpu"):
    return torch.zeros(shape_of_tensor, device=device)


KIND = Kind(
    name="xvector",
    title="x-vector",
    path="speechbrain.lobes.models.Xvector.Xvector",
    arguments=_Arguments,
    mels="in_channels",
    check=_check,
    rewrite=_rewrite,
)
