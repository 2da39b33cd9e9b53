import numpy as np
import pytest
import soundfile

from src import verify
from src.runtime import engine
from src.runtime.audio import waveform
from src.runtime.scoring import mean_direction, normalised
from tests.evaluate.conftest import save_model


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model("model.onnx")
    names = ("a.wav", "b.wav", "c.wav")
    for seed, name in enumerate(names):
        soundfile.write(name, 0.1 * np.random.default_rng(seed).normal(size=8000), 16_000)
    return names


def test_a_score_at_the_threshold_is_the_same_speaker(recordings):
    session = engine.session("model.onnx")
    embeddings = [engine.embedding(session, waveform(path)[0]).astype(np.float64) for path in recordings]
    score = float(mean_direction(embeddings[:2]) @ normalised(embeddings[2]))
    for threshold, decision, status in (
        (score, "same speaker", 0),
        (np.nextafter(score, 2), "different speakers", 1),
        (np.nextafter(score, -2), "same speaker", 0),
    ):
        said, code = verify.verify(recordings[:2], recordings[2], "model.onnx", threshold)
        assert (said["decision"], code) == (decision, status)
