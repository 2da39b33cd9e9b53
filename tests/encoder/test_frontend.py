import pytest
import soundfile
import torch

from src.encoder.frontend import FrontEnd, check
from src.runtime.errors import InputError
from tests.encoder.helpers import babble


def speechbrain_modules(norm=None, **options):
    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    norm = {"norm_type": "sentence", "std_norm": False, **(norm or {})}
    return Fbank(**{"n_mels": 80, **options}), InputNormalization(**norm)


def largest_difference(waveform, **options):
    """In decibels, between SpeechBrain's features and ours."""
    fbank, norm = speechbrain_modules(**options)
    wanted = norm(fbank(waveform), torch.ones(len(waveform)))
    got = FrontEnd(fbank)(waveform)
    assert got.shape == wanted.shape
    return (got - wanted).abs().max().item()


speech = torch.from_numpy(babble(2))


@pytest.mark.parametrize(
    "waveform",
    [
        speech,
        torch.from_numpy(babble(0.3, batch=3)),
        torch.zeros(1, 8000),
        torch.cat([torch.zeros(1, 4000), speech, torch.zeros(1, 4000)], dim=1),
        torch.cat([speech, 1e-4 * speech]),
        (speech * 100).clamp(-1, 1),
        speech * 1e-5,
        torch.ones(1, 8000),
        torch.ones(1, 1),
        *(speech[:, :samples] for samples in (159, 160, 161, 399, 400, 4801, 16_079)),
    ],
    ids=lambda waveform: "x".join(map(str, waveform.shape)),
)
def test_same_features_as_speechbrain(waveform):
    assert largest_difference(waveform) < 0.01


@pytest.mark.parametrize(
    "options",
    [{"n_mels": 40, "f_min": 20, "f_max": 7600}, {"n_fft": 512}, {"n_fft": 512, "win_length": 20, "hop_length": 7.5}],
)
def test_other_settings(options):
    assert largest_difference(speech, **options) < 0.01


def test_real_speech(shared):
    paths = sorted((shared / "speech").rglob("*.flac"))[::100]
    for path in paths:
        waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        assert largest_difference(waveform[None]) < 0.01


@pytest.mark.parametrize(
    "options, message",
    [
        ({"deltas": True}, "Fbank with deltas"),
        ({"context": True}, "Fbank with context"),
        ({"requires_grad": True}, "Fbank with requires_grad"),
        ({"filter_shape": "gaussian"}, "filter_shape gaussian"),
        ({"n_fft": 401}, "odd n_fft"),
        ({"sample_rate": 8000, "n_fft": 200}, "8000 Hz; only 16000 Hz"),
        ({"norm": {"norm_type": "global"}}, "mean_var_norm is global"),
        ({"norm": {"std_norm": True}}, "sentence with std_norm"),
    ],
)
def test_what_it_cannot_reproduce_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        check(*speechbrain_modules(**options))


def test_other_features_are_refused():
    from speechbrain.lobes.features import MFCC

    with pytest.raises(InputError, match="compute_features is MFCC; only Fbank"):
        check(MFCC(), speechbrain_modules()[1])
