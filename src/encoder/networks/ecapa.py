"""ECAPA-TDNN without BatchNorm: the same embeddings from a plain graph that quantises well.

SpeechBrain's block is conv -> ReLU -> BatchNorm: signs and offsets move as `affine` says. So the large layers see ReLU
outputs, their sums and concatenations, and the outputs of the blocks.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from src.encoder.networks import affine, pooling
from src.encoder.networks.affine import Affine, channels, vector
from src.encoder.networks.kind import Channels, Kind, NetworkArguments, Small, Width, check_activations

VARIANCE_FLOOR = 1e-12  # AttentiveStatisticsPooling.eps


class PlainEcapa(nn.Module):
    """features [batch, time, mels] -> embedding [batch, dim]; made by `rewrite`.

    `nn.Conv2d` over [batch, channels, 1, time] where there is a time axis: engines keep such a tensor in the
    layout that their integer convolutions want, and reorder one of three dimensions before and after. Where
    there is one vector an utterance (`se1`, `se2`, `attention.context`, `fc`), `nn.Linear` over
    [batch, 1, channels]: engines have integer kernels for a product of matrices that give float outputs, so
    it can be quantised without quantising its result. Raises RuntimeError, as SpeechBrain does, when the
    utterance has too few frames to pad by reflection.

    pooled: the layer from which on no frame looks at another before the pooling.
    """

    pooled = "mfa"

    def __init__(
        self, layer0: nn.Conv2d, blocks: nn.ModuleDict, mfa: nn.Conv2d, attention: "AttentivePooling", fc: nn.Linear
    ):
        super().__init__()
        self.mels = layer0.in_channels
        self.layer0 = layer0
        self.blocks = blocks
        self.mfa = mfa
        self.attention = attention
        self.fc = fc

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(features))

    def trunk(self, features: torch.Tensor) -> torch.Tensor:
        """What the layer `pooled` reads."""
        x = F.relu(self.layer0(features.transpose(1, 2).unsqueeze(2)))
        outputs = []
        for block in self.blocks.values():
            x = block(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """The embedding, from what `trunk` gives."""
        return self.fc(self.attention(F.relu(self.mfa(x)))).squeeze(1)

    def widths(self) -> list[Width]:
        """Of each block its Res2Net, whose parts are added to one another; none where convolutions have groups."""
        if any(layer.groups > 1 for layer in self.modules() if isinstance(layer, nn.Conv2d)):
            return []
        widths = []
        for name, block in self.blocks.items():
            name, parts = f"blocks.{name}", len(block.res2net) + 1
            signs = {
                f"{name}.res2net_sign{i}": 1 for i in range(parts - 1) if getattr(block, f"res2net_sign{i}") is not None
            }
            convolutions = dict.fromkeys([f"{name}.res2net.{i}" for i in range(parts - 1)], 1)
            outputs = {f"{name}.tdnn1": parts, **convolutions, **signs}
            readers = {**convolutions, f"{name}.tdnn2": parts}
            widths.append(Width(block.tdnn1.out_channels // parts, outputs, readers))
        return widths


class PlainBlock(nn.Module):
    """SERes2NetBlock. Where `*_sign` is not None, it holds the +-1 that could not be folded anywhere."""

    gate_sign: torch.Tensor | None
    residual_sign: torch.Tensor | None

    def __init__(
        self,
        tdnn1: nn.Conv2d,
        res2net: list[nn.Conv2d],
        res2net_sign: list[torch.Tensor | None],
        tdnn2: nn.Conv2d,
        se1: nn.Linear,
        se2: nn.Linear,
        gate_sign: torch.Tensor | None,
        offset: torch.Tensor,
        shortcut: nn.Conv2d | None,
        residual_sign: torch.Tensor | None,
    ):
        super().__init__()
        self.tdnn1 = tdnn1
        self.res2net = nn.ModuleList(res2net)
        for i, sign in enumerate(res2net_sign):
            self.register_buffer(f"res2net_sign{i}", sign)
        self.tdnn2 = tdnn2
        self.se1 = se1
        self.se2 = se2
        self.register_buffer("gate_sign", gate_sign)
        self.offset = nn.Parameter(offset)
        self.shortcut = shortcut
        self.register_buffer("residual_sign", residual_sign)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        if self.residual_sign is not None:
            residual = residual * self.residual_sign
        chunks = F.relu(self.tdnn1(x)).chunk(len(self.res2net) + 1, dim=1)
        outputs = [chunks[0]]
        for i, conv in enumerate(self.res2net):
            x = chunks[i + 1]
            if i > 0:
                sign = getattr(self, f"res2net_sign{i}")
                x = x + (outputs[-1] if sign is None else outputs[-1] * sign)
            outputs.append(F.relu(conv(x)))
        x = F.relu(self.tdnn2(torch.cat(outputs, dim=1)))
        gate = torch.sigmoid(self.se2(F.relu(self.se1(vector(x.mean(dim=3, keepdim=True))))))
        scale = gate if self.gate_sign is None else gate * self.gate_sign
        # In this order all three are sums and products of integers.
        return x * channels(scale) + (residual + channels(gate * self.offset))


class AttentivePooling(nn.Module):
    """AttentiveStatisticsPooling: [batch, channels, 1, time] -> mean and deviation [batch, 1, 2 * channels].

    The attention sees `W_x x + W_m mean + W_s std`: `context`, the part of the utterance's mean and standard
    deviation (None without global context), is computed once an utterance instead of once a frame.
    """

    def __init__(
        self, x: nn.Conv2d, context: nn.Linear | None, scale: torch.Tensor, offset: torch.Tensor, out: nn.Conv2d
    ):
        super().__init__()
        self.x = x
        self.context = context
        # Not folded into `x`: it is huge where a channel is nearly always cut by the ReLU, and would set the
        # range of the whole tensor before it.
        self.scale = nn.Parameter(scale)
        self.offset = nn.Parameter(offset)
        self.out = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.x(x)
        if self.context is not None:
            hidden = hidden + channels(self.context(pooling.statistics(*pooling.moments(x), VARIANCE_FLOOR)))
        logits = self.out(torch.tanh(F.relu(hidden) * self.scale + self.offset))
        return pooling.statistics(*pooling.attentive_moments(logits, x), VARIANCE_FLOOR)


class _Arguments(NetworkArguments):
    activation: Literal["torch.nn.ReLU"] = "torch.nn.ReLU"
    input_size: int = Field(ge=1, le=512)
    lin_neurons: Channels = 192
    channels: list[Channels] = Field([512, 512, 512, 512, 1536], min_length=3, max_length=32)
    kernel_sizes: list[Small] = Field([5, 3, 3, 3, 1], min_length=3, max_length=32)
    dilations: list[Small] = Field([1, 2, 3, 4, 1], min_length=3, max_length=32)
    groups: list[Small] = Field([1, 1, 1, 1, 1], min_length=3, max_length=32)
    attention_channels: Channels = 128
    res2net_scale: Small = 8
    se_channels: Channels = 128
    global_context: bool = True
    dropout: float = Field(0, ge=0, lt=1)


def _check(model: Any, where: str) -> None:
    activations = [(name, module) for name, module in model.named_modules() if name.endswith("activation")]
    check_activations(activations, (nn.ReLU,), where)


def _rewrite(model: Any, mels: int | None) -> PlainEcapa:
    """Exact for any channel width, kernel, dilation, Res2Net scale and groups, and for BatchNorm scales of any sign and
    zero."""
    layer0, x = _tdnn(model.blocks[0], Affine.identity(model.blocks[0].conv.in_channels))
    blocks, outputs = nn.ModuleDict(), []
    for i, block in enumerate(model.blocks[1:], start=1):
        blocks[str(i)], x = _block(block, x)
        outputs.append(x)
    mfa, x = _tdnn(model.mfa, Affine.concat(outputs))
    attention, pooled = _attention(model.asp, x)
    scale, shift = affine.batch_norm(model.asp_bn.norm)
    weight, bias = affine.weights(model.fc.conv)
    fc = _linear(*affine.fold(weight * scale[:, None], bias + weight.sum(2) @ shift, pooled))
    return PlainEcapa(layer0, blocks, mfa, attention, fc)


def _block(block, x):
    """PlainBlock of a SERes2NetBlock whose input stands for `x`, and what its output stands for."""
    if block.shortcut:
        shortcut = affine.one_high(block.shortcut.conv, *affine.fold(*affine.weights(block.shortcut.conv), x))
        residual = Affine.identity(shortcut.out_channels)
    else:
        shortcut, residual = None, x
    tdnn1, hidden = _tdnn(block.tdnn1, x)
    chunks = hidden.chunk(block.res2net_block.scale)
    outputs, res2net, signs = [chunks[0]], [], []
    for i, tdnn in enumerate(block.res2net_block.blocks):
        taken, sign = chunks[i + 1], None
        if i > 0:
            sign = affine.unless_one(taken.sign * outputs[-1].sign)
            taken = Affine(taken.sign, taken.offset + outputs[-1].offset)
        conv, out = _tdnn(tdnn, taken)
        res2net.append(conv)
        signs.append(None if sign is None else sign[:, None, None])
        outputs.append(out)
    tdnn2, hidden = _tdnn(block.tdnn2, Affine.concat(outputs))
    sign = affine.unless_one(residual.sign)
    plain = PlainBlock(
        tdnn1,
        res2net,
        signs,
        tdnn2,
        se1=_linear(*affine.fold(*affine.weights(block.se_block.conv1.conv), hidden)),
        se2=_linear(*affine.weights(block.se_block.conv2.conv)),
        gate_sign=affine.unless_one(hidden.sign),
        offset=hidden.offset,
        shortcut=shortcut,
        residual_sign=None if sign is None else sign[:, None, None],
    )
    return plain, Affine(torch.ones_like(residual.sign), residual.offset)


def _attention(asp, x):
    """AttentivePooling of features that stand for `x`, and what the pooled vector stands for."""
    width = len(x.sign)
    pooled = Affine.concat([x, Affine.identity(width)])  # sign * r + offset deviates as r does
    inputs = Affine.concat([x, pooled]) if asp.global_context else x
    weight, bias = affine.fold(*affine.weights(asp.tdnn.conv.conv), inputs)
    scale, shift = affine.batch_norm(asp.tdnn.norm.norm)
    context = _linear(weight[:, width:], bias) if asp.global_context else None
    hidden = affine.one_high(asp.tdnn.conv.conv, weight[:, :width], None if asp.global_context else bias)
    # A constant in each channel changes no softmax over time, so the bias goes.
    out = affine.one_high(asp.conv.conv, affine.weights(asp.conv.conv)[0], None)
    return AttentivePooling(hidden, context, scale[:, None, None], shift[:, None, None], out), pooled


def _tdnn(block, x):
    return affine.tdnn(block.conv.conv, block.norm.norm, x)


def _linear(weight, bias):
    """Of a convolution of kernel 1."""
    return affine.linear(weight.squeeze(2), bias)


KIND = Kind(
    name="ecapa",
    title="ECAPA-TDNN",
    path="speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
    arguments=_Arguments,
    mels="input_size",
    check=_check,
    rewrite=_rewrite,
)
