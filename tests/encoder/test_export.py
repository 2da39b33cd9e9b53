import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from src.encoder.export import export_onnx
from src.encoder.frontend import FrontEnd
from src.encoder.networks import rewrite
from tests.encoder.helpers import babble, cosine

SECONDS = (0.3, 1.2345, 3, 30)


def exported(classifier, path):
    """The classifier's fp32 encoder as an ONNX file."""
    front_end = FrontEnd(classifier.mods["compute_features"])
    export_onnx(nn.Sequential(front_end, rewrite(classifier.mods["embedding_model"])).eval(), path)
    return path


@pytest.fixture(scope="module")
def file(classifier, tmp_path_factory):
    return exported(classifier, tmp_path_factory.mktemp("onnx") / "fp32.onnx")


def in_onnxruntime(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda waveform: session.run(["embedding"], {"waveform": waveform})[0]


def in_openvino(path):
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda waveform: model({"waveform": waveform})["embedding"]


@pytest.mark.parametrize("engine", [in_onnxruntime, in_openvino])
def test_same_embeddings_as_encode_batch(file, classifier, engine):
    run = engine(file)
    for seconds in SECONDS:
        for batch in (1, 3):
            waveform = babble(seconds, seed=batch, batch=batch)
            wanted = classifier.encode_batch(torch.from_numpy(waveform)).squeeze(1)
            assert cosine(wanted, run(waveform)) > 0.99999, (seconds, batch)
    for waveform in (torch.zeros(1, 16_000), torch.ones(1, 16_000)):
        assert cosine(classifier.encode_batch(waveform).squeeze(1), run(waveform.numpy())) > 0.99999


def test_file_has_the_interface_and_holds_little_beside_the_weights(file, classifier):
    graph = onnx.load(file).graph
    described = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert described == {"waveform": ["batch", "samples"], "embedding": ["batch", 24]}
    weights = 4 * sum(p.numel() for p in rewrite(classifier.mods["embedding_model"]).parameters())
    assert file.stat().st_size < weights + 50_000
    text = file.read_bytes()
    assert b".py" not in text and b"stack_trace" not in text


def test_fourier_and_mel_matrices_are_built_once(file, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    stored = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert len(products) >= 3 and all(node.input[1] in stored for node in products)


def test_same_bytes_again_and_nothing_beside(file, classifier, tmp_path):
    again = exported(classifier, tmp_path / "again.onnx")
    assert again.read_bytes() == file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.onnx"]


def test_a_failed_export_leaves_the_old_file(tmp_path):
    path = tmp_path / "fp32.onnx"
    path.write_bytes(b"old")

    class Broken(nn.Module):
        def forward(self, waveform):
            raise ValueError("broken")

    with pytest.raises(torch.onnx.errors.OnnxExporterError):
        export_onnx(Broken(), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["fp32.onnx"]
