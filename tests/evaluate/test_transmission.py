import io
from typing import get_args

import numpy as np
import pytest
import soundfile
from scipy.signal import welch

from src.common.params import Breakdown
from src.evaluate import transmission
from src.evaluate.transmission import CODECS, encode, transmit


@pytest.fixture(scope="module")
def speech():
    """Three seconds of noise in the band of speech, its level as that of syllables."""
    rng, times = np.random.default_rng(0), np.arange(48_000) / 16_000
    spectrum = np.fft.rfft(rng.normal(size=48_000))
    frequency = np.fft.rfftfreq(48_000, 1 / 16_000)
    spectrum[(frequency < 200) | (frequency > 7_000)] = 0
    sound = np.fft.irfft(spectrum / np.maximum(frequency, 200)) * (1 + np.sin(2 * np.pi * 4 * times))
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def lag(changed, clean):
    """By how many samples the one is behind the other, where they are most alike."""
    size = 2 * len(clean)
    likeness = np.fft.irfft(np.fft.rfft(changed, size) * np.conj(np.fft.rfft(clean, size)), size)
    place = int(np.argmax(likeness))
    return place if place < len(clean) else place - size


def level(waveform, low, high):
    frequency, power = welch(waveform, 16_000, nperseg=1024)
    return 10 * np.log10(power[(frequency >= low) & (frequency < high)].mean())


def test_parameters_name_what_there_is():
    (names,) = get_args(Breakdown.model_fields["channels"].annotation)
    assert get_args(names) == (*CODECS, "reverberation")


@pytest.mark.parametrize("name", [*CODECS, "reverberation"])
@pytest.mark.parametrize("samples", [48_000, 47_999, 4_801])
def test_length_and_position_stay_and_the_sound_does_not(speech, name, samples):
    clean = speech[:samples]
    changed = transmit(name, clean, np.random.default_rng(1))
    assert changed.dtype == np.float32 and changed.shape == clean.shape and np.abs(changed).max() <= 1
    assert lag(changed, clean) == 0
    ratio = 10 * np.log10(np.sum(clean**2) / np.sum((changed - clean) ** 2))
    assert 0 < ratio < 30
    np.testing.assert_array_equal(changed, transmit(name, clean, np.random.default_rng(1)))


@pytest.mark.parametrize(("name", "kilobits"), [("alaw", 64), ("gsm", 13), ("opus", 12), ("mp3", 32)])
def test_bit_rates_are_what_the_names_promise(speech, name, kilobits):
    long = np.tile(speech, 6)  # beside which the container's header weighs little
    assert 8 * len(encode(CODECS[name], long)) / (len(long) / 16) == pytest.approx(kilobits, rel=0.07)


@pytest.mark.parametrize("name", ["alaw", "gsm"])
def test_telephones_leave_nothing_above_4_khz(speech, name):
    changed = transmit(name, speech, np.random.default_rng(0))
    assert level(changed, 4_300, 7_000) < level(speech, 4_300, 7_000) - 20
    assert level(changed, 500, 2_000) == pytest.approx(level(speech, 500, 2_000), abs=3)


def test_what_exceeds_full_scale_on_the_way_is_clipped():
    square = np.sign(np.sin(2 * np.pi * 700 * np.arange(16_000) / 16_000)).astype(np.float32)  # filtering overshoots
    for codec in CODECS.values():
        decoded, _ = soundfile.read(io.BytesIO(encode(codec, square)))
        assert np.corrcoef(decoded[2_000:3_000] > 0, decoded[2_000:3_000])[0, 1] > 0.8


def test_rooms_differ_and_ring_on():
    click = np.zeros(16_000, np.float32)
    click[0] = 0.5
    first, second = (transmit("reverberation", click, np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)
    for heard in (first, second):
        energy = np.cumsum(heard[::-1].astype(float) ** 2)[::-1]
        assert (
            energy[int(0.1 * 16_000)]
            > 1e-4 * energy[0]
            > energy[int(1.2 * transmission.REVERBERATION[1] * 16_000) :].max(initial=0)
        )


def test_real_speech_keeps_its_length_and_position(shared):
    for path in sorted((shared / "speech").glob("*/*/*.flac"))[::200]:
        clean = soundfile.read(path, dtype="float32")[0]
        for name in CODECS:
            changed = transmit(name, clean, np.random.default_rng(0))
            assert len(changed) == len(clean) and lag(changed, clean) == 0
