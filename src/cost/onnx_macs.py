"""Multiply-accumulates of an exported ONNX file, and the share of them that runs on integers.

The encoder is the convolutions and all that is computed from them: an ECAPA-TDNN begins with a convolution,
and our front end, which comes before it, has none. The front end is counted apart, because fvcore's count of
the PyTorch encoder begins at the features too.
"""

import os
import tempfile
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
from onnx import TensorProto

from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError

# Operators that multiply and accumulate: {operator: the input with the weights}. The other factor is input 0.
HEADLINE = {"gmacs": 4, "int8_mac_share": 4, "size_mb": 2}  # what a person compares between runs, and its decimals
CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
PRODUCTS = {
    "Gemm": 1,
    "FusedGemm": 1,
    "QGemm": 3,
    "MatMul": 1,
    "FusedMatMul": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QLinearMatMul": 3,
    "MatMulNBits": 1,
}
FACTORS = CONVOLUTIONS | PRODUCTS
INTEGER = {
    "ConvInteger",
    "QLinearConv",
    "QGemm",
    "QLinearMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
}
# Operators that multiply by rules which this count lacks: better no number than a number too low.
UNCOUNTED = {
    "ConvTranspose",
    "QLinearConvTranspose",
    "DeformConv",
    "Einsum",
    "LSTM",
    "GRU",
    "RNN",
    "DFT",
    "STFT",
    "Attention",
    "MultiHeadAttention",
    "QAttention",
    "If",
    "Loop",
    "Scan",
}
# Operators whose output is a choice among the values of their inputs.
MOVES = {
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
SMALL_TYPES = {TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT4, TensorProto.INT4}
WEIGHT_TYPES = SMALL_TYPES | {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT32,
}


@dataclass(frozen=True)
class Layer:
    """One node that multiplies. `integer`: integers of 8 bits or fewer; `front_end`: before the encoder."""

    name: str
    op: str
    macs: int
    integer: bool
    front_end: bool


def cost(path: Path | str, seconds: float) -> dict[str, float]:
    """What a file costs for `seconds` s of audio at batch 1: the cost keys of the metrics.

    gmacs (10^9 multiply-accumulates of the encoder, from the file), gflops (2 a MAC), int8_mac_share (share
    of the encoder's MACs that ONNX Runtime runs on integers), int8_mac_share_in_file (share that the file
    offers to any engine as such), front_end_gmacs (in none of the former), params_million (weights and
    biases of the encoder) and size_mb (10^6 bytes). Raises InputError as `count` does.
    """
    waveform = np.zeros((1, round(seconds * SAMPLE_RATE)), np.float32)
    layers = count(path, waveform)
    macs = sum(layer.macs for layer in layers if not layer.front_end)
    return {
        "gmacs": macs / 1e9,
        "gflops": 2 * macs / 1e9,
        "int8_mac_share": integer_share(count(path, waveform, optimised=True)),
        "int8_mac_share_in_file": integer_share(layers),
        "front_end_gmacs": sum(layer.macs for layer in layers if layer.front_end) / 1e9,
        "params_million": parameters(path) / 1e6,
        "size_mb": os.path.getsize(path) / 1e6,
    }


def headline(cost: dict) -> dict:
    """Of what `cost` gives, what a person compares between runs, rounded."""
    return {key: round(cost[key], digits) for key, digits in HEADLINE.items()}


def count(path: Path | str, waveform: np.ndarray, optimised: bool = False) -> list[Layer]:
    """The layers of an ONNX file that multiply, in the order in which they run.

    waveform: what the file's one input is fed, an array.

    As it stands in the file, a layer counts as integer when both its factors come, at most moved on the way,
    from DequantizeLinear of 8-bit or smaller integers. That is an offer to the engine, not a fact: with
    `optimised=True` the layers are those of the graph that ONNX Runtime makes of the file on a CPU, where
    only operators that take integers count. (Its highest level of optimisation is left out: it changes
    layouts, by processor, and turns nothing from integer to float or back.)

    Raises InputError when the file is missing or not ONNX, or has an operator that multiplies by a rule not
    known here.
    """
    model = _load(path)
    if optimised:
        model = _optimised(model)
    graph = _Graph(model)
    encoder = graph.encoder()
    return [
        Layer(
            node.name, node.op_type, macs, graph.is_integer(node, offered=not optimised), node.output[0] not in encoder
        )
        for node, macs in _multiplying(model, waveform)
    ]


def integer_share(layers: list[Layer]) -> float:
    """The share of the encoder's MACs that is integer; 0 when it has none."""
    encoder = [layer for layer in layers if not layer.front_end]
    integer = sum(layer.macs for layer in encoder if layer.integer)
    return integer / max(1, sum(layer.macs for layer in encoder))


def parameters(path: Path | str) -> int:
    """Number of weights and biases of the encoder: elements of its initializers but scales and shapes."""
    model = _load(path)
    graph = _Graph(model)
    encoder = graph.encoder()
    fed = graph.downstream({value.name for value in model.graph.input})
    used = set()
    for node in reversed(model.graph.node):
        constant = fed.isdisjoint(node.output) and not used.isdisjoint(node.output)
        if constant or not encoder.isdisjoint(node.output):
            scaling = node.op_type in ("QuantizeLinear", "DequantizeLinear")
            used.update(node.input[:1] if scaling else node.input)
    sizes = [
        prod(tensor.dims)
        for name, tensor in graph.initializer.items()
        if name in used and tensor.data_type in WEIGHT_TYPES
    ]
    return sum(size for size in sizes if size > 1)  # one element: a constant of a formula


class _Graph:
    """Where the values of a model's main graph come from and go to."""

    def __init__(self, model):
        self.nodes = model.graph.node
        self.producer = {output: node for node in self.nodes for output in node.output if output}
        self.initializer = {tensor.name: tensor for tensor in model.graph.initializer}

    def downstream(self, values):
        """The values and all that is computed from them; ONNX keeps nodes in an order that runs."""
        computed = set(values)
        for node in self.nodes:
            if not computed.isdisjoint(node.input):
                computed.update(filter(None, node.output))
        return computed

    def encoder(self):
        """The values that the encoder computes."""
        return self.downstream({node.output[0] for node in self.nodes if node.op_type in CONVOLUTIONS})

    def is_integer(self, node, offered):
        if node.op_type in INTEGER or not offered:
            return node.op_type in INTEGER
        return all(self._is_dequantised(node.input[i]) for i in (0, FACTORS[node.op_type]))

    def _is_dequantised(self, value):
        node = self.producer.get(value)
        if node is None:
            return False
        if node.op_type == "DequantizeLinear":
            return self._type(node.input[0]) in SMALL_TYPES
        return node.op_type in MOVES and all(map(self._is_dequantised, _moved(node)))

    def _type(self, value):
        if value in self.initializer:
            return self.initializer[value].data_type
        node = self.producer.get(value)
        if node is None:
            return None
        if node.op_type == "QuantizeLinear":
            if len(node.input) > 2 and node.input[2]:
                return self._type(node.input[2])
            return _attribute(node, "output_dtype", 0) or TensorProto.UINT8
        if node.op_type == "Cast":
            return _attribute(node, "to", None)
        return self._type(node.input[0]) if node.op_type in MOVES else None


def _moved(node):
    """The inputs that are moved, without those that say where to."""
    return node.input if node.op_type == "Concat" else node.input[:1]


def _attribute(node, name, default):
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _load(path):
    try:
        model = onnx.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:
        raise InputError(f"{path}: not an ONNX file: {' '.join(str(error).split())}") from None
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    unknown = sorted({node.op_type for node in model.graph.node} & UNCOUNTED)
    if unknown:
        allowed = ", ".join(FACTORS)
        raise InputError(f"{path}: MACs of {', '.join(unknown)} cannot be counted; allowed: {allowed}")
    return model


def _session(model, level, optimised_path=None):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # a warning says that an optimised file is bound to this processor
    if optimised_path:
        options.optimized_model_filepath = optimised_path
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _optimised(model):
    """The model as ONNX Runtime changes it when it loads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "optimised.onnx")
        _session(model, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, path)
        return onnx.load(path)


def _multiplying(model, waveform):
    """(node, MACs) of every node that multiplies; the shapes are read off a run without optimisation."""
    nodes = [node for node in model.graph.node if node.op_type in FACTORS]
    given = {value.name for value in (*model.graph.input, *model.graph.output)}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    weights = [node.input[FACTORS[node.op_type]] for node in nodes]
    probes = {*weights, *(node.input[0] for node in nodes), *(node.output[0] for node in nodes)}
    probes -= given | set(shapes)
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(probes))
    session = _session(probed, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    source = session.get_inputs()[0].name
    shapes[source] = waveform.shape
    values = session.run(None, {source: waveform})
    shapes.update((output.name, np.asarray(value).shape) for output, value in zip(session.get_outputs(), values))
    return [(node, _macs(node, shapes)) for node in nodes]


def _macs(node, shapes):
    """Each output element is a sum over the weights of one output channel, or over the inner dimension."""
    if node.op_type in CONVOLUTIONS:
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[FACTORS[node.op_type]]][1:])
    left = shapes[node.input[0]]
    inner = left[-2] if _attribute(node, "transA", 0) else left[-1]
    return prod(shapes[node.output[0]]) * inner
