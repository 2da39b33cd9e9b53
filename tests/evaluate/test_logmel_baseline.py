from dataclasses import replace

import numpy as np
import pytest

from src.data.manifest import TRAINING
from src.data.recordings import load_audio
from src.encoder.load import prepare_speechbrain
from src.evaluate import logmel_baseline
from src.evaluate.evaluation import evaluate
from src.runtime.errors import InputError
from tests.evaluate.test_accuracy import CONFIG, recomputed
from tests.evaluate.test_normalise import configured


def test_a_tone_peaks_in_its_filter():
    times = np.arange(16_000) / 16_000
    for hertz in (440, 1000, 3000):
        features = logmel_baseline.log_mel(np.sin(2 * np.pi * hertz * times))
        assert features.shape == (98, logmel_baseline.MELS)
        mel = 2595 * np.log10(1 + hertz / 700) / (2595 * np.log10(1 + 8000 / 700)) * (logmel_baseline.MELS + 1) - 1
        assert (abs(features.argmax(axis=1) - mel) <= 1.5).all()


def test_filters_are_torchaudios():
    prepare_speechbrain()
    from torchaudio.functional import melscale_fbanks

    frame = np.random.default_rng(0).normal(size=400)
    power = np.abs(np.fft.rfft(frame * np.hamming(400))) ** 2
    filters = melscale_fbanks(201, 0.0, 8000.0, 80, 16_000, norm=None, mel_scale="htk").numpy()
    present = filters.any(axis=0)  # some of the lowest are narrower than a bin
    expected = np.log(power @ filters[:, present])
    assert logmel_baseline.log_mel(frame)[0, present] == pytest.approx(expected, abs=1e-2)


def test_louder_is_higher_and_silence_is_finite():
    noise = np.random.default_rng(0).normal(size=8000)
    np.testing.assert_allclose(
        logmel_baseline.log_mel(10 * noise) - logmel_baseline.log_mel(noise), np.log(100), atol=1e-6
    )
    assert np.isfinite(logmel_baseline.log_mel(np.zeros(8000))).all()


def test_evaluated_as_a_model_is(project):
    found = evaluate(logmel_baseline.embed, "logmel", project, CONFIG)
    assert (found["top1_accuracy"], found["eer"]) == pytest.approx(recomputed("logmel"), abs=1e-6)
    # Speakers of the project differ in the colour of their noise, which is all that this can tell.
    assert found["eer"] < 0.4 and found["seen"]["speakers"] == 3
    features, (row, _) = logmel_baseline.log_mel(load_audio(project[1])), logmel_baseline.embed(project[1:3])
    mean = features.sum(axis=0) / len(features)
    spread = np.sqrt(((features - mean) ** 2).sum(axis=0) / len(features))
    assert row == pytest.approx(np.concatenate([mean, spread]))


@pytest.mark.parametrize("split", TRAINING)
def test_speakers_shared_with_fine_tuning(project, split):
    rows = [*project, replace(project[0], split=split), replace(project[0], split=split, speaker="x")]
    with pytest.raises(InputError, match="1 test speakers are in calibration or finetune too .s0.*allow_shared"):
        evaluate("a.onnx", "fp32", rows, CONFIG)
    found = evaluate("a.onnx", "fp32", rows, configured(allow_shared_speakers=True))
    plain = evaluate("a.onnx", "fp32", project, CONFIG)
    assert found == plain | {"shared_speakers": 1}
