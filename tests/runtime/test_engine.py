import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from src.runtime import engine
from src.runtime.errors import InputError


def encoder(path, weights):
    """A file from waveform to embedding whose metadata say what its weights are."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in ((engine.INPUT, "samples"), (engine.OUTPUT, 4))
    ]
    constant = [onnx.numpy_helper.from_array(np.zeros((1, 4), np.float32), "zero")]
    nodes = [
        helper.make_node("ReduceMean", [engine.INPUT], ["mean"], axes=[1]),
        helper.make_node("Add", ["mean", "zero"], [engine.OUTPUT]),
    ]
    graph = helper.make_graph(nodes, "encoder", ends[:1], ends[1:], constant)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if weights:
        helper.set_model_props(model, {engine.WEIGHTS: weights})
    onnx.save(model, path)
    return path


def test_the_file_that_is_tried_multiplies_integers():
    matrices = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in (("a", TensorProto.UINT8), ("b", TensorProto.INT8), ("c", TensorProto.INT32))
    ]
    node = helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "p", matrices[:2], matrices[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5)
    model.producer_name = ""
    assert onnx.load_from_string(engine._PRODUCT) == model


@pytest.mark.parametrize("weights", [None, engine.PORTABLE, engine.FULL])
def test_a_file_is_refused_only_where_the_sums_of_its_weights_saturate(tmp_path, weights):
    path = encoder(tmp_path / "model.onnx", weights)
    if weights == engine.FULL and engine.saturates():
        with pytest.raises(InputError, match=r"model\.onnx: has 8-bit weights, .*quantize\.weights: portable"):
            engine.session(path)
    else:
        session = engine.session(path)
        assert engine.weights(session) == weights
        assert engine.embedding(session, np.ones(16000, np.float32)) == pytest.approx(np.ones(4))
