"""Multiply-accumulates of an exported ONNX file, and the share of them that runs on integers.

The encoder is the convolutions and all that is computed from them: every network begins with a convolution,
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
import onnx.shape_inference
import onnxruntime as ort
from onnx import TensorProto

from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError, one_line

HEADLINE = {"gmacs": 4, "int8_mac_share": 4, "size_mb": 2}  # what a person compares between runs, and its decimals
# Operators that multiply and accumulate: {operator: the input with the weights}. The other factor is input 0.
CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCTS = "Gemm FusedGemm MatMul FusedMatMul MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul MatMulNBits"
FACTORS = CONVOLUTIONS | dict.fromkeys(_PRODUCTS.split(), 1) | {"QGemm": 3, "QLinearMatMul": 3}
INTEGER = frozenset(
    "ConvInteger QLinearConv QGemm QLinearMatMul MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul".split()
)
# Operators that multiply by rules which this count lacks: better no number than a number too low.
UNCOUNTED = frozenset(
    "ConvTranspose QLinearConvTranspose DeformConv Einsum LSTM GRU RNN DFT STFT Attention MultiHeadAttention QAttention "
    "If Loop Scan".split()
)
# Operators whose output is a choice among the values of their inputs.
MOVES = frozenset("Concat Expand Flatten Gather Identity Pad Reshape Slice Split Squeeze Transpose Unsqueeze".split())
SMALL_TYPES = {TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT4, TensorProto.INT4}
FLOAT_TYPES = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
WEIGHT_TYPES = SMALL_TYPES | FLOAT_TYPES | {TensorProto.INT32}


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
    total = sum(layer.macs for layer in layers)
    macs = sum(layer.macs for layer in layers if not layer.front_end)
    return {
        "gmacs": macs / 1e9,
        "gflops": 2 * macs / 1e9,
        "int8_mac_share": integer_share(count(path, waveform, optimised=True)),
        "int8_mac_share_in_file": integer_share(layers),
        "front_end_gmacs": (total - macs) / 1e9,
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
    encoder = _encoder(model.graph)
    offered = set() if optimised else _offered(model)
    shapes = _shapes(model, waveform)
    layers = []
    for node in model.graph.node:
        if node.op_type in FACTORS:
            factors = node.input[0], node.input[FACTORS[node.op_type]]
            integer = node.op_type in INTEGER or offered.issuperset(factors)
            macs, front_end = _macs(node, shapes), node.output[0] not in encoder
            layers.append(Layer(node.name, node.op_type, macs, integer, front_end))
    return layers


def integer_share(layers: list[Layer]) -> float:
    """The share of the encoder's MACs that is integer; 0 when it has none."""
    encoder = [layer for layer in layers if not layer.front_end]
    integer = sum(layer.macs for layer in encoder if layer.integer)
    return integer / max(1, sum(layer.macs for layer in encoder))


def parameters(path: Path | str) -> int:
    """Number of weights and biases of the encoder: elements of its initializers but scales and shapes."""
    graph = _load(path).graph
    encoder, fed = _encoder(graph), _downstream(graph, {value.name for value in graph.input})
    used = set()
    for node in reversed(graph.node):
        constant = fed.isdisjoint(node.output) and not used.isdisjoint(node.output)
        if constant or not encoder.isdisjoint(node.output):
            scaling = node.op_type in ("QuantizeLinear", "DequantizeLinear")
            used.update(node.input[:1] if scaling else node.input)
    weights = [tensor for tensor in graph.initializer if tensor.name in used and tensor.data_type in WEIGHT_TYPES]
    sizes = [prod(tensor.dims) for tensor in weights]
    return sum(size for size in sizes if size > 1)  # one element: a constant of a formula


def _downstream(graph, values):
    """The values and all that is computed from them; ONNX keeps nodes in an order that runs."""
    computed = set(values)
    for node in graph.node:
        if not computed.isdisjoint(node.input):
            computed.update(filter(None, node.output))
    return computed


def _encoder(graph):
    """The values that the encoder computes."""
    return _downstream(graph, {node.output[0] for node in graph.node if node.op_type in CONVOLUTIONS})


def _offered(model):
    """The values that were integers of 8 bits or fewer, and at most moved since they were dequantised."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    offered = set()
    for node in graph.node:
        moved = node.input if node.op_type == "Concat" else node.input[:1]  # without those that say where to
        dequantised = node.op_type == "DequantizeLinear" and types.get(node.input[0]) in SMALL_TYPES
        if dequantised or (node.op_type in MOVES and offered.issuperset(moved)):
            offered.update(node.output)
    return offered


def _load(path):
    """The model with its functions inlined."""
    try:
        model = onnx.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:
        raise InputError(f"{path}: not an ONNX file: {one_line(error)}") from None
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    unknown = sorted({node.op_type for node in model.graph.node} & UNCOUNTED)
    if unknown:
        allowed = ", ".join(FACTORS)
        raise InputError(f"{path}: MACs of {', '.join(unknown)} cannot be counted; allowed: {allowed}")
    return model


def _session(model, level, optimised_path=""):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # a warning says that an optimised file is bound to this processor
    options.optimized_model_filepath = optimised_path
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _optimised(model):
    """The model as ONNX Runtime changes it when it loads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "optimised.onnx")
        _session(model, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, path)
        return onnx.load(path)


def _shapes(model, waveform):
    """{value: shape} of the factors and the outputs of nodes that multiply, read off a run without optimisation."""
    graph = model.graph
    nodes = [node for node in graph.node if node.op_type in FACTORS]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    values = {name for node in nodes for name in (node.input[0], node.input[FACTORS[node.op_type]], node.output[0])}
    values -= shapes.keys() | {value.name for value in (*graph.input, *graph.output)}
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(values))
    session = _session(probed, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    source = session.get_inputs()[0].name
    results = session.run(None, {source: waveform})
    names = [output.name for output in session.get_outputs()]
    return (
        shapes | {source: waveform.shape} | {name: np.shape(value) for name, value in zip(names, results, strict=True)}
    )


def _macs(node, shapes):
    """Each output element is a sum over the weights of one output channel, or over the inner dimension."""
    if node.op_type in CONVOLUTIONS:
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[FACTORS[node.op_type]]][1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][-2 if transposed else -1]
