"""MACs and integer shares of small ONNX files whose counts are known by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from src.cost import onnx_macs
from src.runtime.errors import InputError

SAMPLES, MELS, CHANNELS, DIM = 400, 8, 16, 4
HOP = 20
FRAMES = SAMPLES // HOP
RNG = np.random.default_rng(0)


def array(name, *shape):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def save(path, nodes, initializers, source="waveform", shape=("batch", "samples")):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "test",
        [info(source, TensorProto.FLOAT, shape)],
        [info("embedding", TensorProto.FLOAT, ["batch", DIM])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture
def waveform():
    return np.zeros((1, SAMPLES), np.float32)


@pytest.fixture
def encoder(tmp_path):
    """waveform -> frames -> mel (MatMul), then Pad, Conv of 3, Relu, mean, Gemm: our own files in small."""
    node = helper.make_node
    nodes = [
        node("Reshape", ["waveform", "frame_shape"], ["frames"]),
        node("MatMul", ["frames", "mel"], ["levels"]),
        node("Transpose", ["levels"], ["features"], perm=[0, 2, 1]),
        node("Pad", ["features", "around"], ["padded"], mode="reflect"),
        node("Conv", ["padded", "conv.weight", "conv.bias"], ["convolved"], name="conv"),
        node("Relu", ["convolved"], ["relu"]),
        node("ReduceMean", ["relu"], ["pooled"], axes=[2], keepdims=0),
        node("Gemm", ["pooled", "fc.weight", "fc.bias"], ["embedding"], name="fc", transB=1),
    ]
    initializers = [
        ints("frame_shape", 0, -1, HOP),
        ints("around", 0, 0, 1, 0, 0, 1),
        array("mel", HOP, MELS),
        array("conv.weight", CHANNELS, MELS, 3),
        array("conv.bias", CHANNELS),
        array("fc.weight", DIM, CHANNELS),
        array("fc.bias", DIM),
    ]
    return save(tmp_path / "fp32.onnx", nodes, initializers)


def quantised(source, path, ops, output_too=True):
    """QDQ by ONNX Runtime's own static quantisation."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter([{"waveform": RNG.standard_normal((1, SAMPLES)).astype(np.float32)}])

        def get_next(self):
            return next(self.left, None)

    quantize_static(
        source,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=ops,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={} if output_too else {"OpTypesToExcludeOutputQuantization": ops},
    )
    return path


CONV = FRAMES * CHANNELS * MELS * 3
FC = CHANNELS * DIM
FRONT_END = FRAMES * HOP * MELS


@pytest.mark.parametrize("optimised", [False, True])
def test_counts_of_a_float_file(encoder, waveform, optimised):
    layers = onnx_macs.count(encoder, waveform, optimised)
    assert [layer.macs for layer in layers] == [FRONT_END, CONV, FC]
    assert [layer.front_end for layer in layers] == [True, False, False]
    assert not any(layer.integer for layer in layers)


def test_cost_has_the_keys_of_the_contract(encoder):
    cost = onnx_macs.cost(encoder, SAMPLES / 16_000)
    assert cost == {
        "gmacs": (CONV + FC) / 1e9,
        "gflops": 2 * (CONV + FC) / 1e9,
        "int8_mac_share": 0,
        "int8_mac_share_in_file": 0,
        "front_end_gmacs": FRONT_END / 1e9,
        "params_million": (CHANNELS * MELS * 3 + CHANNELS + DIM * CHANNELS + DIM) / 1e6,
        "size_mb": encoder.stat().st_size / 1e6,
    }


def test_quantised_layers_are_integer(encoder, waveform, tmp_path):
    path = quantised(encoder, tmp_path / "int8.onnx", ["Pad", "Conv"])
    offered, run = (onnx_macs.count(path, waveform, optimised) for optimised in (False, True))
    for layers in (offered, run):
        assert sum(layer.macs for layer in layers if layer.integer) == CONV
        assert onnx_macs.integer_share(layers) == CONV / (CONV + FC)
    assert "QLinearConv" in {layer.op for layer in run}
    # The weights are the same in number; their scales and zero points are none of them.
    assert onnx_macs.parameters(path) == onnx_macs.parameters(encoder)


def test_an_offer_that_the_engine_does_not_take(encoder, waveform, tmp_path):
    # ONNX Runtime runs a Conv on integers only when its output is quantised too.
    path = quantised(encoder, tmp_path / "half.onnx", ["Pad", "Conv"], output_too=False)
    cost = onnx_macs.cost(path, SAMPLES / 16_000)
    assert (cost["int8_mac_share"], cost["int8_mac_share_in_file"]) == (0, CONV / (CONV + FC))


def test_integer_front_end_is_in_no_share(encoder, waveform, tmp_path):
    path = quantised(encoder, tmp_path / "front.onnx", ["MatMul"])
    layers = onnx_macs.count(path, waveform, optimised=True)
    assert [layer.integer for layer in layers if layer.front_end] == [True]
    assert onnx_macs.integer_share(layers) == 0


def test_float_factor_is_no_offer(tmp_path, waveform):
    # int8 weights are dequantised, activations are float: the product is float.
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["waveform", "one"], ["x"]),
        node("DequantizeLinear", ["weight", "scale", "zero"], ["w"]),
        node("Conv", ["x", "w"], ["y"]),
        node("ReduceMean", ["y"], ["embedding"], axes=[2], keepdims=0),
    ]
    weight = numpy_helper.from_array(RNG.integers(-127, 128, (DIM, 1, 5)).astype(np.int8), "weight")
    initializers = [
        ints("one", 1),
        weight,
        numpy_helper.from_array(np.float32(0.1), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    path = save(tmp_path / "w8.onnx", nodes, initializers)
    (layer,) = onnx_macs.count(path, waveform)
    assert layer.macs == DIM * 5 * (SAMPLES - 4) and not layer.integer
    assert onnx_macs.parameters(path) == DIM * 5


def test_grouped_convolution_and_transposed_product(tmp_path):
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["y"], group=4, strides=[2]),
        node("ReduceMean", ["y"], ["mean"], axes=[2], keepdims=0),
        node("Transpose", ["mean"], ["turned"], perm=[1, 0]),
        node("Gemm", ["turned", "fc"], ["embedding"], transA=1),
    ]
    weights = [array("w", 8, 2, 3), array("fc", 8, DIM)]
    path = save(tmp_path / "g.onnx", nodes, weights, "x", ("batch", 8, "t"))
    conv, fc = onnx_macs.count(path, np.zeros((1, 8, 21), np.float32))
    assert conv.macs == 10 * 8 * 2 * 3
    assert fc.macs == 8 * DIM


def test_functions_are_looked_into(tmp_path, waveform):
    opset = helper.make_opsetid("", 17)
    product = helper.make_node("MatMul", ["a", "b"], ["c"])
    function = helper.make_function("local", "product", ["a", "b"], ["c"], [product], [opset])
    call = helper.make_node("product", ["waveform", "w"], ["embedding"], domain="local")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [call],
        "test",
        [info("waveform", TensorProto.FLOAT, ["batch", SAMPLES])],
        [info("embedding", TensorProto.FLOAT, ["batch", DIM])],
        [array("w", SAMPLES, DIM)],
    )
    opsets = [opset, helper.make_opsetid("local", 1)]
    path = tmp_path / "function.onnx"
    onnx.save(helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8), path)
    assert [layer.macs for layer in onnx_macs.count(path, waveform)] == [SAMPLES * DIM]


def test_bad_files(tmp_path, waveform):
    with pytest.raises(InputError, match="no such file"):
        onnx_macs.count(tmp_path / "none.onnx", waveform)
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(InputError, match="not an ONNX file"):
        onnx_macs.count(tmp_path / "text.onnx", waveform)
    nodes = [helper.make_node("Einsum", ["waveform", "w"], ["embedding"], equation="bs,sd->bd")]
    path = save(tmp_path / "einsum.onnx", nodes, [array("w", SAMPLES, DIM)])
    with pytest.raises(InputError, match="Einsum cannot be counted"):
        onnx_macs.count(path, waveform)
