import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from src.data import recordings
from src.data.manifest import Row


def save_model(path, factor=1.0, size=5):
    """An ONNX model that gives, for a waveform, the mean magnitudes of it through `size` short filters."""
    filters = factor * np.random.default_rng(0).normal(size=(size, 1, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["waveform", "one"], ["channels"]),
        helper.make_node("Conv", ["channels", "filters"], ["filtered"]),
        helper.make_node("Abs", ["filtered"], ["magnitudes"]),
        helper.make_node("ReduceMean", ["magnitudes", "last"], ["embedding"], keepdims=0),
    ]
    constants = {"one": np.array([1]), "last": np.array([2]), "filters": filters}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", size])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with audio of nine speakers, four utterances each, and two models. Gives the manifest rows; the
    last three speakers are the split validation, the others the split test."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = []
    for speaker in range(9):
        colour = rng.normal(size=9)
        for number in range(4):
            path = f"{speaker}{number}.flac"
            noise = rng.normal(size=4000 + 300 * number)
            sound = np.convolve(noise, colour + 0.5 * rng.normal(size=9), "same")
            recordings.save(path, (3000 * sound / np.abs(sound).max()).astype(np.int16))
            name, seconds = f"s{speaker}/{number}.wav", len(sound) / 16_000
            split = "test" if speaker < 6 else "validation"
            rows.append(Row(name, f"s{speaker}", split, path, seconds, int(speaker < 3)))
    save_model("a.onnx")
    save_model("b.onnx", factor=2)
    return rows
