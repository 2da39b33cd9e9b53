import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torchao.quantization.pt2e import MovingAveragePerChannelMinMaxObserver

from src.common.params import Quantize
from src.cost import onnx_macs
from src.encoder.frontend import FrontEnd
from src.quantize import ptq
from src.quantize.quantizer import GROUPS, ClippingObserver
from src.runtime import engine
from src.runtime.errors import InputError
from tests.quantize.conftest import exported


@pytest.fixture(scope="module")
def portable(network, features, tmp_path_factory):
    """(graph with integers, its file): with portable weights, since sums of products of 8-bit ones saturate on processors
    without VNNI."""
    config = Quantize.model_validate({"weight_bits": dict.fromkeys(GROUPS, 8), "weights": "portable"})
    prepared = ptq.prepare(network, "minmax", ptq.weight_bits(config))
    ptq.calibrate_activations(prepared, features)
    converted = ptq.convert(prepared)
    return converted, exported(converted, tmp_path_factory.mktemp("ptq") / "ptq.onnx")


def test_exported_file_runs_on_integers_and_equals_the_torch_program(portable):
    from speechbrain.lobes.features import Fbank

    converted, path = portable
    rng = np.random.default_rng(0)
    session = onnxruntime.InferenceSession(path)
    for batch, samples in ((1, 8_000), (3, 20_000)):
        waveform = (0.1 * rng.standard_normal((batch, samples))).astype("float32")
        theirs = converted(FrontEnd(Fbank(n_mels=80))(torch.from_numpy(waveform)))
        ours = torch.from_numpy(session.run(None, {"waveform": waveform})[0])
        assert torch.cosine_similarity(ours, theirs).min() > 0.999
    assert onnx_macs.cost(path, 3.0)["int8_mac_share"] == 1
    weights = [w for w in onnx.load(path).graph.initializer if w.data_type == onnx.TensorProto.INT8 and len(w.dims) > 1]
    floats = [w for w in onnx.load(path).graph.initializer if w.data_type == onnx.TensorProto.FLOAT and len(w.dims) > 1]
    assert sum(np.prod(w.dims) for w in weights) > 10 * sum(np.prod(w.dims) for w in floats)


def test_what_only_moves_values_moves_integers(network, portable):
    graph = onnx.load(portable[1]).graph
    producer = {name: node for node in graph.node for name in node.output}
    scales = {t.name: onnx.numpy_helper.to_array(t).tolist() for t in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    padded = [
        n
        for n in graph.node
        if n.op_type == "Pad" and {a.name: a.s for a in n.attribute if a.name == "mode"} == {"mode": b"reflect"}
    ]
    dilated = sum(len(block.res2net) for block in network.blocks.values())
    # All but the one of the features, which are floats, read what a quantised layer gave.
    kinds = [producer[node.input[0]].op_type for node in padded]
    assert len(kinds) == 1 + dilated and kinds.count("Unsqueeze") == 1 and "DequantizeLinear" not in kinds
    # The mean over time of the output of every block's last convolution, and of the aggregation layer's.
    assert sum(node.op_type == "GlobalAveragePool" for node in graph.node) == len(network.blocks) + 1
    joined = [
        node
        for node in graph.node
        if node.op_type == "Concat" and all(producer[name].op_type == "DequantizeLinear" for name in node.input)
    ]
    assert len(joined) == len(network.blocks) + 1 and len(convolutions) > len(joined)
    for node in joined:
        assert len({scales[producer[name].input[1]] for name in node.input}) == 1


def test_every_layer_is_quantised(network, calibrated):
    layers = [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    converted = ptq.convert(calibrated[0])
    per_channel = torch.ops.quantized_decomposed.dequantize_per_channel.default
    dequantised = [node for node in converted.graph.nodes if node.target == per_channel]
    assert len(dequantised) == len(layers) > 15


def test_calibration_decides_the_ranges(network, features):
    ranges = []
    for gain in (1, 3):
        prepared = ptq.prepare(network, "minmax")
        ptq.calibrate_activations(prepared, [gain * one for one in features])
        ranges.append(ptq.activation_ranges(prepared))
    assert ranges[0].keys() == ranges[1].keys()
    first = next(iter(ranges[0]))
    assert np.isclose(ranges[1][first]["scale"] / ranges[0][first]["scale"], 3, rtol=0.01)


def test_quantised_embeddings_stay_near(network, features, calibrated):
    converted = ptq.convert(calibrated[0])
    cosines = [torch.cosine_similarity(converted(x), network(x)).item() for x in features]
    assert min(cosines) > 0.99 and max(cosines) < 1 - 1e-7  # near, and really quantised


def test_prepare_and_convert_leave_their_input_alone(network, calibrated):
    before = copy.deepcopy(network.state_dict())
    ptq.convert(calibrated[0])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert ptq.observers(calibrated[0])


def test_portable_weights_keep_sums_of_two_products_in_16_bits_and_stay_near(network, features, portable):
    converted, path = portable
    graph = onnx.load(path).graph
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
    ]
    assert len(weights) > 15 and max(np.abs(weight.astype(int)).max() for weight in weights) == 63
    assert 2 * 255 * 63 < 2**15 < 2 * 255 * 127
    assert min(torch.cosine_similarity(converted(x), network(x)).item() for x in features) > 0.99


def test_portable_weights_leave_a_4_bit_group_at_4_bits():
    bits = {**dict.fromkeys(GROUPS, 8), "mfa": 4}
    settings = Quantize.model_validate({"weight_bits": bits, "weights": "portable"})
    assert ptq.weight_bits(settings) == {**dict.fromkeys(GROUPS, 7), "mfa": 4}


def test_full_weights_have_8_bits_and_are_refused_where_their_figures_would_be_wrong():
    bits = dict.fromkeys(GROUPS, 8)
    settings = Quantize.model_validate({"weight_bits": bits, "weights": "full"})
    if engine.saturates():
        with pytest.raises(InputError, match=r"quantize\.weights: full: this processor .* allowed here: portable"):
            ptq.weight_bits(settings)
    else:
        assert ptq.weight_bits(settings) == bits


def test_clipping_rounds_with_less_error_than_the_whole_range():
    weight = torch.from_numpy(np.random.default_rng(0).standard_t(4, (8, 64, 1, 3)).astype("float32"))
    errors = []
    for kind in (ClippingObserver, MovingAveragePerChannelMinMaxObserver):
        observer = kind(
            dtype=torch.int8,
            quant_min=-7,
            quant_max=7,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            averaging_constant=1.0,
        )
        assert observer(weight) is weight
        scale, zero = observer.calculate_qparams()
        assert not zero.any()
        step = scale[:, None, None, None]
        errors.append((weight - (weight / step).round().clamp(-7, 7) * step).square().sum((1, 2, 3)))
    assert (errors[0] <= errors[1] * (1 + 1e-6)).all() and errors[0].sum() < 0.9 * errors[1].sum()
    observer(0 * weight)
    assert observer.calculate_qparams()[0].isfinite().all()  # a channel without weights


@pytest.mark.slow
def test_four_bit_weights_are_stored_in_four_bits_and_run_on_integers(network, features, tmp_path):
    files = {}
    for bits in (8, 4):
        prepared = ptq.prepare(network, "minmax", {"mfa": bits, "blocks": bits})
        ptq.calibrate_activations(prepared, features)
        converted = ptq.convert(prepared)
        files[bits] = exported(converted, tmp_path / f"bits-{bits}.onnx")
        assert min(torch.cosine_similarity(converted(x), network(x)).item() for x in features) > 0.9
    graph = onnx.load(files[4]).graph
    small = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.INT4}
    layers = [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)) and name.split(".")[0] in ("mfa", "blocks")
    ]
    assert len(small) == len(layers) and all(len(t.raw_data) == -(-np.prod(t.dims) // 2) for t in small.values())
    assert files[4].stat().st_size < files[8].stat().st_size
    cost = onnx_macs.cost(files[4], 3.0)
    assert cost["int8_mac_share"] == cost["int8_mac_share_in_file"] == 1
    assert cost["params_million"] == onnx_macs.cost(files[8], 3.0)["params_million"]
