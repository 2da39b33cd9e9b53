"""Where the network is quantised: the places of its observers."""

import dataclasses
import itertools
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver, MovingAveragePerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

_ANNOTATION = "quantization_annotation"
_OPS = torch.ops.aten
_CONVS = {_OPS.conv2d.default}
_LINEARS = {_OPS.linear.default}
OBSERVERS = {"histogram": HistogramObserver, "minmax": MinMaxObserver}
GROUPS = ("layer0", "blocks", "mfa", "attention", "fc")
# Shares of a channel's largest weight, or of the largest and of the smallest value, that a range may end at.
CUTS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5)
LOW_CUTS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.0)


def few(bits: int) -> bool:
    """Whether weights have so few bits that it matters where their range ends and how they are rounded."""
    return bits <= 6


def clipped(weight: torch.Tensor, largest: int) -> torch.Tensor:
    """For each row of a weight [outputs, inputs] the magnitude [outputs, 1] at which its range ends, that rounds it to -largest
    to largest steps with the least mean square error.

    With 15 levels a finer step for most weights is worth more than a range that holds the largest.
    """
    magnitude = weight.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    best, least = magnitude, torch.full_like(magnitude, torch.inf)
    for cut in CUTS:
        step = cut * magnitude / largest
        rounded = (weight / step).round().clamp(-largest, largest) * step
        error = (weight - rounded).square().sum(1, keepdim=True)
        best, least = torch.where(error < least, cut * magnitude, best), torch.minimum(error, least)
    return best


class ClippingObserver(MovingAveragePerChannelMinMaxObserver):
    """The range, per channel, of the weights seen last: where they are `clipped`."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        self.max_val = clipped(weight.detach().flatten(1), self.quant_max)[:, 0]
        self.min_val = -self.max_val
        return weight


class LeakyObserver(HistogramObserver):
    """The range of what goes into a LeakyReLU that gives, after it, the least mean square error.

    Below zero little is left of an error, so that few of the steps are spent there.
    """

    def __init__(self, slope: float, **options: Any):
        super().__init__(**options)
        self.slope = slope

    def _non_linear_param_search(self) -> tuple[torch.Tensor, torch.Tensor]:
        edges = torch.linspace(self.min_val.item(), self.max_val.item(), self.bins + 1)
        values = (edges[1:] + edges[:-1]) / 2
        ends, least = (self.min_val, self.max_val), torch.inf
        for low, high in itertools.product(LOW_CUTS, CUTS):
            bottom, top = low * self.min_val.clamp(max=0), high * self.max_val.clamp(min=0)
            step = ((top - bottom) / (self.quant_max - self.quant_min)).clamp(min=self.eps)
            rounded = (values / step).round() * step
            error = self._leaky(values) - self._leaky(rounded.clamp(bottom, top))
            total = (self.histogram * error.square()).sum().item()
            if total < least:
                ends, least = (bottom, top), total
        return ends

    def _leaky(self, values):
        return F.leaky_relu(values, self.slope)


class EncoderQuantizer(Quantizer):
    """Annotates a plain network for static INT8: u8 activations, s8 weights per output channel.

    weight_bits: {one of GROUPS: bits of its weights, at most 8}; 8 where it is not named.

    Every convolution reads u8 and s8, and its output, after its ReLU where it has one, is u8 again, which is
    what ONNX Runtime asks for before it runs a convolution on integers. A LeakyReLU is no part of an integer
    convolution: it reads u8 and gives u8, which the engine looks up in a table. Linear layers see one vector an
    utterance: they read integers too but give floats. Slices, pads and concatenations move u8 values, and
    what is concatenated has one scale; means over time of u8 values are u8, with a scale of their own. So are sums
    that go into a convolution, and products by a gate that go into such a sum.
    """

    def __init__(self, observer: str = "histogram", weight_bits: dict[str, int] | None = None):
        super().__init__()
        self.weight_bits = dict.fromkeys(GROUPS, 8) | (weight_bits or {})
        self.activation = QuantizationSpec(
            dtype=torch.uint8,
            quant_min=0,
            quant_max=255,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=OBSERVERS[observer],
        )

    def _weight(self, name):
        """The specification of the weights called `name` in the network."""
        bits = self.weight_bits[name.split(".")[0]]
        largest = 2 ** (bits - 1) - 1
        observer = ClippingObserver if few(bits) else MovingAveragePerChannelMinMaxObserver
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-largest,
            quant_max=largest,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            # The range of the weights of the moment, since fine-tuning moves them.
            observer_or_fake_quant_ctr=observer.with_args(averaging_constant=1.0),
        )

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        nodes = list(model.graph.nodes)
        for node in nodes:
            if node.target in _CONVS | _LINEARS:
                self._annotate_layer(node)
        for node in nodes:
            source = _moved(node)
            if source is not None and _is_quantised(source):
                _annotate(node, {}, SharedQuantizationSpec(source))
            elif _sums(node) or _gates(node):
                _annotate(node, dict.fromkeys(node.args[:2], self.activation), self.activation)
            elif node.target is _OPS.mean.dim and _is_quantised(node.args[0]):
                _annotate(node, {node.args[0]: self.activation}, self.activation)
            elif node.target is _OPS.cat.default and all(map(_is_quantised, node.args[0])):
                _share(node)
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        pass

    def _annotate_layer(self, node):
        source, weight = node.args[:2]
        inputs = {source: self.activation, weight: self._weight(weight.target)}
        relu = next(iter(node.users)) if len(node.users) == 1 else None
        if node.target in _LINEARS:
            _annotate(node, inputs, None)
        elif relu is not None and relu.target is _OPS.relu.default:
            _annotate(node, inputs, None)
            _annotate(relu, {}, self.activation)
        elif relu is not None and relu.target is _OPS.leaky_relu.default:
            slope = relu.args[1] if len(relu.args) > 1 else 0.01
            observer = LeakyObserver.with_args(slope=slope)
            _annotate(node, inputs, dataclasses.replace(self.activation, observer_or_fake_quant_ctr=observer))
            _annotate(relu, {}, self.activation)
        else:
            _annotate(node, inputs, self.activation)


def _annotate(node, inputs, output):
    node.meta[_ANNOTATION] = QuantizationAnnotation(input_qspec_map=inputs, output_qspec=output, _annotated=True)


def _share(cat):
    """One range for all that is joined, so that joining only moves values."""
    first, *others = cat.args[0]
    shared = SharedQuantizationSpec(first)
    for other in others:
        other.meta[_ANNOTATION].output_qspec = shared
    _annotate(cat, dict.fromkeys(cat.args[0], shared), shared)


def _moved(node):
    """The node whose values `node` only moves, or None."""
    if node.target is _OPS.pad.default:
        return node.args[0]
    if node.target is operator.getitem and node.args[0].target is _OPS.chunk.default:
        return node.args[0].args[0]
    return None


def _sums(node):
    """Whether it is a sum before a convolution."""
    return node.target is _OPS.add.Tensor and any(map(_reaches_conv, node.users))


def _gates(node):
    """Whether it is the product of a quantised value and a computed one, and all that is done with it is adding it to
    something before a convolution."""
    return (
        node.target is _OPS.mul.Tensor
        and _is_quantised(node.args[0])
        and isinstance(node.args[1], torch.fx.Node)
        and node.args[1].op != "get_attr"
        and all(map(_sums, node.users))
    )


def _is_quantised(node):
    annotation = node.meta.get(_ANNOTATION)
    return annotation is not None and annotation.output_qspec is not None


def _reaches_conv(node):
    """Whether the value goes into a convolution, at most padded, concatenated or added to others on the way."""
    if node.target in _CONVS:
        return True
    passed = (_OPS.pad.default, _OPS.cat.default, _OPS.add.Tensor)
    return node.target in passed and any(map(_reaches_conv, node.users))
