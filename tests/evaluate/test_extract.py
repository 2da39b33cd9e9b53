import dataclasses

import numpy as np
import onnx
import pytest

from src.data.recordings import load_audio
from src.evaluate import extract
from src.runtime import engine
from src.runtime.errors import InputError
from tests.evaluate.conftest import save_model


def test_each_row_gets_its_own_embedding_whatever_the_number_of_workers(project):
    alone = extract.embed("a.onnx", project, workers=1)
    assert alone.dtype == np.float32 and alone.shape == (len(project), 5)
    np.testing.assert_array_equal(alone, extract.embed("a.onnx", project, workers=5))
    np.testing.assert_array_equal(alone[::-1], extract.embed(engine.session("a.onnx"), project[::-1]))
    direct = engine.session("a.onnx").run(None, {"waveform": load_audio(project[7])[None]})[0][0]
    np.testing.assert_array_equal(alone[7], direct)


def test_order_is_kept_from_one_queue_to_the_next_and_none_is_read_far_ahead(project, monkeypatch):
    whole, opened = extract.embed("a.onnx", project), []
    monkeypatch.setattr(extract, "QUEUED", 7)
    np.testing.assert_array_equal(whole, extract.embed("a.onnx", project, workers=3))
    broken = dataclasses.replace(project[0], path="nowhere.flac")

    def audio(row):
        opened.append(row.path)
        return load_audio(row)

    with pytest.raises(InputError, match="nowhere.flac"):
        extract.embed("a.onnx", [broken, *project], workers=3, audio=audio)
    assert len(opened) <= 7


@pytest.mark.parametrize("factor", [0.0, np.nan])
def test_useless_embedding_is_an_error(project, factor):
    save_model("bad.onnx", factor)
    with pytest.raises(InputError, match="00.flac: the embedding is zero, or not finite"):
        extract.embed("bad.onnx", project[:1])


def test_no_model(project, tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    other = onnx.load("a.onnx")
    other.graph.node[0].input[0] = other.graph.input[0].name = "audio"
    onnx.save(other, "other.onnx")
    for name, reason in (
        ("text.onnx", "not a model"),
        ("missing.onnx", "not a model"),
        ("other.onnx", "makes embedding of audio, not embedding of waveform"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*{reason}"):
            engine.session(name)
