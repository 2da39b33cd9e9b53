"""Every kind of network in INT8: every convolution on integers, in the file and in the engine."""

import collections
import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from src.cost import onnx_macs
from src.encoder.export import export_onnx
from src.encoder.frontend import FrontEnd
from src.encoder.networks import rewrite
from src.quantize import ptq, qat
from src.quantize.quantizer import GROUPS, LeakyObserver
from src.quantize.sensitivity import sensitivity
from src.runtime import engine
from tests.encoder.helpers import NETWORK, RESNET, XVECTOR, babble, cosine, random_ecapa, random_resnet, random_xvector

MELS = {"ecapa": 80, "xvector": 24, "resnet": 80}
MODELS = {
    "ecapa": lambda: random_ecapa(NETWORK, mild=True),
    "xvector": lambda: random_xvector(XVECTOR, mild=True),
    "resnet": lambda: random_resnet(RESNET, mild=True),
}


def front_end(name):
    from speechbrain.lobes.features import Fbank

    return FrontEnd(Fbank(n_mels=MELS[name])).eval()


@pytest.fixture(scope="module", params=MELS)
def made(request):
    """(name, plain network, features, graph with observers, ranges)."""
    name = request.param
    network = rewrite(MODELS[name](), MELS[name]).requires_grad_(False)
    features = [front_end(name)(torch.from_numpy(babble(0.6, seed=seed))) for seed in range(4)]
    prepared = ptq.prepare(network, "histogram", dict.fromkeys(GROUPS, 7))
    ptq.calibrate_activations(prepared, features)
    return name, network, features, prepared, ptq.activation_ranges(prepared)


@pytest.fixture(scope="module")
def file(made, tmp_path_factory):
    name, _, _, prepared, _ = made
    path = tmp_path_factory.mktemp(name) / "ptq.onnx"
    export_onnx(torch.nn.Sequential(front_end(name), ptq.convert(prepared)), path, engine.PORTABLE)
    return path


def test_quantised_embeddings_stay_near(made):
    _, network, features, prepared, _ = made
    converted = ptq.convert(prepared)
    with torch.no_grad():
        cosines = [cosine(network(x), converted(x)) for x in features]
    assert min(cosines) > 0.995 and max(cosines) < 1 - 1e-7


def test_the_file_runs_on_integers_and_equals_the_torch_program(made, file):
    name, _, _, prepared, _ = made
    session, converted = onnxruntime.InferenceSession(file), ptq.convert(prepared)
    for batch, seconds in ((1, 0.7), (3, 1.2345)):
        waveform = babble(seconds, seed=9, batch=batch)
        with torch.no_grad():
            theirs = converted(front_end(name)(torch.from_numpy(waveform)))
        assert cosine(theirs, session.run(None, {"waveform": waveform})[0]) > 0.995
    graph = onnx.load(file).graph
    assert {tensor.name for tensor in graph.initializer} <= {name for node in graph.node for name in node.input}
    cost = onnx_macs.cost(file, 3.0)
    assert cost["int8_mac_share"] == cost["int8_mac_share_in_file"] == 1


def test_between_convolutions_the_engine_leaves_integers_alone(made, file, tmp_path):
    name, network, _, _, _ = made
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(file, options)
    counts = collections.Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    assert counts["QLinearConv"] == convolutions and not counts["Conv"]
    if name == "xvector":
        assert counts["QLinearLeakyRelu"] == convolutions
    elif name == "ecapa":
        blocks = len(network.blocks)
        assert counts["QLinearMul"] == blocks
        # The offset of the gate, the residual, and those of Res2Net.
        assert counts["QLinearAdd"] == sum(2 + len(block.res2net) - 1 for block in network.blocks.values())
        assert counts["QLinearGlobalAveragePool"] == blocks + 1
    else:
        gated = sum(block.se1 is not None for block in network.blocks.values())
        assert counts["QLinearAdd"] == len(network.blocks)
        assert counts["QLinearMul"] == counts["QLinearGlobalAveragePool"] == gated


def test_fine_tuning_starts_from_the_quantised_network_and_learns(made):
    _, network, features, prepared, ranges = made
    student = qat.fake_quantise(copy.deepcopy(prepared), ranges)
    converted = ptq.convert(prepared)
    assert all(torch.allclose(student(x), converted(x), atol=1e-4) for x in features)
    with torch.no_grad():  # weights that are off, as 8 bits hardly hurt this small network
        for parameter in student.parameters():
            parameter += 0.2 * parameter.abs().mean() * torch.randn(parameter.shape, generator=torch.manual_seed(0))
    optimizer, losses = torch.optim.Adam(student.parameters(), 3e-4), []
    batch = torch.cat(features)
    for _ in range(12):
        loss = (1 - torch.cosine_similarity(student(batch), network(batch))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]


def test_the_groups_are_those_of_the_parameters(made):
    _, network, features, prepared, ranges = made
    student = qat.fake_quantise(copy.deepcopy(prepared), ranges)
    rows = sensitivity(student, features[:1])
    blocks = [f"blocks.{name}" for name in network.blocks]
    rest = {"ecapa": ["mfa", "attention", "fc"], "xvector": ["mfa", "fc"], "resnet": ["attention", "fc"]}[made[0]]
    assert [row["group"] for row in rows] == ["layer0", *blocks, *rest, "all"]
    assert all(np.isfinite(row["embedding_sqnr_db"]) for row in rows)


@pytest.mark.parametrize("slope", [0.01, 0.2, 1.0])
def test_the_range_before_a_leaky_relu_spends_its_steps_where_an_error_remains(slope):
    values = torch.randn(1, 4, 1, 20_000, generator=torch.manual_seed(0)) - 1
    found = {}
    for name, observer in (("leaky", LeakyObserver(slope, **OPTIONS)), ("plain", ptq_observer())):
        observer(values)
        scale, zero = observer.calculate_qparams()
        rounded = ((values / scale).round() + zero).clamp(0, 255)
        error = torch.nn.functional.leaky_relu((rounded - zero) * scale, slope)
        error = error - torch.nn.functional.leaky_relu(values, slope)
        found[name] = error.square().mean().item()
    assert found["leaky"] <= found["plain"] * 1.05
    if slope == 0.01:
        assert found["leaky"] < 0.6 * found["plain"]


OPTIONS = {"dtype": torch.uint8, "quant_min": 0, "quant_max": 255, "qscheme": torch.per_tensor_affine}


def ptq_observer():
    from torchao.quantization.pt2e import HistogramObserver

    return HistogramObserver(**OPTIONS)
