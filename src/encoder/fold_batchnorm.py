"""ECAPA-TDNN without BatchNorm: the same embeddings from a plain graph that quantises well.

SpeechBrain's block is conv -> ReLU -> BatchNorm. In eval mode BatchNorm is `a * r + c` for each channel,
with r >= 0 the output of the ReLU. |a| moves back through the ReLU into the convolution. What is left is
`sign * r + offset`, and the consumers take both: a convolution multiplies its weights by the signs and adds
its response to the constant `offset` to its bias, which is exact because reflect padding keeps a constant
constant. So the large layers see ReLU outputs, their sums and concatenations, and the outputs of the blocks.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from src.runtime.errors import InputError

VARIANCE_FLOOR = 1e-12  # AttentiveStatisticsPooling.eps


class PlainEcapa(nn.Module):
    """features [batch, time, mels] -> embedding [batch, dim]; made by `rewrite`.

    `nn.Conv2d` over [batch, channels, 1, time] where there is a time axis: engines keep such a tensor in the
    layout that their integer convolutions want, and reorder one of three dimensions before and after. Where
    there is one vector an utterance (`se1`, `se2`, `attention.context`, `fc`), `nn.Linear` over
    [batch, 1, channels]: engines have integer kernels for a product of matrices that give float outputs, so
    it can be quantised without quantising its result. Raises RuntimeError, as SpeechBrain does, when the
    utterance has too few frames to pad by reflection.
    """

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
        x = F.relu(self.layer0(features.transpose(1, 2).unsqueeze(2)))
        outputs = []
        for block in self.blocks.values():
            x = block(x)
            outputs.append(x)
        x = F.relu(self.mfa(torch.cat(outputs, dim=1)))
        return self.fc(self.attention(x)).squeeze(1)


def _vector(x):
    """[batch, channels, 1, 1] -> [batch, 1, channels]."""
    return x.flatten(2).transpose(1, 2)


def _channels(vector):
    """[batch, 1, channels] -> [batch, channels, 1, 1]."""
    return vector.transpose(1, 2).unsqueeze(3)


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
        gate = torch.sigmoid(self.se2(F.relu(self.se1(_vector(x.mean(dim=3, keepdim=True))))))
        scale = gate if self.gate_sign is None else gate * self.gate_sign
        return x * _channels(scale) + _channels(gate * self.offset) + residual


class AttentivePooling(nn.Module):
    """AttentiveStatisticsPooling: [batch, channels, 1, time] -> mean and deviation [batch, 1, 2 * channels].

    The attention sees `W_x x + W_m mean + W_s std`: `context`, the part of the utterance's mean and standard
    deviation (None without global context), is computed once an utterance instead of once a frame. The
    weighted statistics are those of the deviation from the plain mean, which is there already: with d = x -
    mean, they are mean + E[d] and E[d^2] - E[d]^2, one pass over the frames less than from x itself.
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
        mean = x.mean(dim=3, keepdim=True)
        deviation = x - mean
        square = deviation * deviation
        hidden = self.x(x)
        if self.context is not None:
            hidden = hidden + _channels(self.context(_statistics(mean, square.mean(dim=3, keepdim=True))))
        weights = self.out(torch.tanh(F.relu(hidden) * self.scale + self.offset)).softmax(dim=3)
        shift = (weights * deviation).sum(dim=3, keepdim=True)
        return _statistics(mean + shift, (weights * square).sum(dim=3, keepdim=True) - shift * shift)


def _statistics(mean, variance):
    return _vector(torch.cat([mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()], dim=1))


def check(embedding_model: Any, where: str = "encoder") -> None:
    """Raise InputError, naming `where`, when this is not an ECAPA_TDNN that `rewrite` reproduces."""
    if type(embedding_model).__name__ != "ECAPA_TDNN":
        raise InputError(f"{where}: the network is {type(embedding_model).__name__}, not an ECAPA_TDNN")
    for name, module in embedding_model.named_modules():
        if name.endswith("activation") and type(module) is not nn.ReLU:
            kind = type(module).__name__
            raise InputError(f"{where}: {name} is {kind}; only ReLU can be rewritten exactly")


def rewrite(embedding_model: Any) -> PlainEcapa:
    """The PlainEcapa that gives the same embeddings as a SpeechBrain ECAPA_TDNN in eval mode.

    Exact for any channel width, kernel, dilation, Res2Net scale and groups, and for BatchNorm scales of any
    sign and zero. Computed in float64, stored in the model's own precision, all of it trainable. Raises
    InputError when the network has an activation other than ReLU.
    """
    check(embedding_model)
    dtype = embedding_model.fc.conv.weight.dtype
    with torch.no_grad():
        plain = _rewrite(embedding_model)
    return plain.to(dtype).requires_grad_(True)


class Affine(NamedTuple):
    """A tensor that stands for `sign * tensor + offset`, for each channel."""

    sign: torch.Tensor
    offset: torch.Tensor

    @staticmethod
    def identity(channels: int) -> "Affine":
        return Affine(torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64))

    @staticmethod
    def concat(parts: list["Affine"]) -> "Affine":
        return Affine(torch.cat([p.sign for p in parts]), torch.cat([p.offset for p in parts]))

    def chunk(self, parts: int) -> list["Affine"]:
        return [Affine(*pair) for pair in zip(self.sign.chunk(parts), self.offset.chunk(parts))]


def _rewrite(model):
    layer0, x = _tdnn(model.blocks[0], Affine.identity(model.blocks[0].conv.in_channels))
    blocks, outputs = nn.ModuleDict(), []
    for i, block in enumerate(model.blocks[1:], start=1):
        blocks[str(i)], x = _block(block, x)
        outputs.append(x)
    mfa, x = _tdnn(model.mfa, Affine.concat(outputs))
    attention, pooled = _attention(model.asp, x)
    scale, shift = _batch_norm(model.asp_bn)
    weight, bias = _weights(model.fc)
    fc = _linear(*_fold(weight * scale[:, None], bias + weight.sum(2) @ shift, pooled))
    return PlainEcapa(layer0, blocks, mfa, attention, fc)


def _block(block, x):
    """PlainBlock of a SERes2NetBlock whose input stands for `x`, and what its output stands for."""
    if block.shortcut:
        shortcut = _conv(block.shortcut, *_fold(*_weights(block.shortcut), x))
        residual = Affine.identity(shortcut.out_channels)
    else:
        shortcut, residual = None, x
    tdnn1, hidden = _tdnn(block.tdnn1, x)
    chunks = hidden.chunk(block.res2net_block.scale)
    outputs, res2net, signs = [chunks[0]], [], []
    for i, tdnn in enumerate(block.res2net_block.blocks):
        taken, sign = chunks[i + 1], None
        if i > 0:
            sign = _unless_one(taken.sign * outputs[-1].sign)
            taken = Affine(taken.sign, taken.offset + outputs[-1].offset)
        conv, out = _tdnn(tdnn, taken)
        res2net.append(conv)
        signs.append(None if sign is None else sign[:, None, None])
        outputs.append(out)
    tdnn2, hidden = _tdnn(block.tdnn2, Affine.concat(outputs))
    sign = _unless_one(residual.sign)
    plain = PlainBlock(
        tdnn1,
        res2net,
        signs,
        tdnn2,
        se1=_linear(*_fold(*_weights(block.se_block.conv1), hidden)),
        se2=_linear(*_weights(block.se_block.conv2)),
        gate_sign=_unless_one(hidden.sign),
        offset=hidden.offset,
        shortcut=shortcut,
        residual_sign=None if sign is None else sign[:, None, None],
    )
    return plain, Affine(torch.ones_like(residual.sign), residual.offset)


def _attention(asp, x):
    """AttentivePooling of features that stand for `x`, and what the pooled vector stands for."""
    channels = len(x.sign)
    pooled = Affine.concat([x, Affine.identity(channels)])  # sign * r + offset deviates as r does
    inputs = Affine.concat([x, pooled]) if asp.global_context else x
    weight, bias = _fold(*_weights(asp.tdnn.conv), inputs)
    scale, shift = _batch_norm(asp.tdnn.norm)
    context = _linear(weight[:, channels:], bias) if asp.global_context else None
    hidden = _conv(asp.tdnn.conv, weight[:, :channels], None if asp.global_context else bias)
    # A constant in each channel changes no softmax over time, so the bias goes.
    out = _conv(asp.conv, _weights(asp.conv)[0], None)
    return AttentivePooling(hidden, context, scale[:, None, None], shift[:, None, None], out), pooled


def _tdnn(block, x):
    """The convolution of a TDNNBlock whose input stands for `x`, and what its ReLU output stands for."""
    weight, bias = _fold(*_weights(block.conv), x)
    scale, shift = _batch_norm(block.norm)
    conv = _conv(block.conv, weight * scale.abs()[:, None, None], bias * scale.abs())
    return conv, Affine(_sign(scale), shift)


def _fold(weight, bias, x):
    """Weights and bias for the tensor itself, from those for `x`, what it stands for."""
    groups = len(x.sign) // weight.shape[1]
    by_group = weight.unflatten(0, (groups, -1))
    sign, offset = (v.view(groups, 1, -1, 1) for v in x)
    return (by_group * sign).flatten(0, 1), bias + (by_group * offset).sum(dim=(2, 3)).flatten()


def _weights(conv):
    return conv.conv.weight.double().cpu(), conv.conv.bias.double().cpu()


def _batch_norm(norm):
    """The scale and the shift that a BatchNorm1d applies in eval mode."""
    norm = norm.norm
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale.cpu(), (norm.bias.double() - scale * norm.running_mean.double()).cpu()


def _conv(like, weight, bias):
    """An nn.Conv2d, one high, with these weights; reflect padding as that of SpeechBrain's "same"."""
    (kernel,), (dilation,) = like.conv.kernel_size, like.conv.dilation
    padding = dilation * (kernel - 1) // 2
    groups = like.conv.groups
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
    return _filled(conv, weight.unsqueeze(2), bias)


def _linear(weight, bias):
    return _filled(nn.Linear(weight.shape[1], weight.shape[0]), weight.squeeze(2), bias)


def _filled(module, weight, bias):
    module.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        module.bias = nn.Parameter(bias.contiguous())
    return module


def _sign(scale):
    return torch.where(scale < 0, -1.0, 1.0).double()


def _unless_one(sign):
    return None if bool((sign > 0).all()) else sign
