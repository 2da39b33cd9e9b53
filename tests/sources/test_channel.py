"""What the channel does to a signal, measured on its output."""

import numpy as np
import pytest
from scipy.signal import freqz

from src.runtime.audio import SAMPLE_RATE
from src.sources import channel

WHITE = np.random.default_rng(9).standard_normal(2 * SAMPLE_RATE)
SILENT = (300, 300)  # dB: noise that no float32 holds


def applied(seed, snr_range=(5, 30), samples=WHITE):
    return channel.apply(samples, np.random.default_rng(seed), snr_range)


def snr(seed, snr_range):
    """dB of the signal, as room and microphone leave it, over what else is in the output."""
    noisy, clean = applied(seed, snr_range).astype(float), applied(seed, SILENT).astype(float)
    signal = clean * (noisy @ clean) / (clean @ clean)
    return 10 * np.log10(np.sum(signal**2) / np.sum((noisy - signal) ** 2))


@pytest.mark.parametrize("level", [-5, 5, 20])
def test_noise_has_the_level_that_is_asked_for(level):
    assert [snr(seed, (level, level)) for seed in range(6)] == pytest.approx([level] * 6, abs=0.3)


def test_noise_levels_fill_the_range():
    levels = [snr(seed, (5, 30)) for seed in range(30)]
    assert 4.7 < min(levels) < 8 and 27 < max(levels) < 30.3


def test_same_seed_same_channel_another_seed_another():
    np.testing.assert_array_equal(applied(1), applied(1))
    # Room and microphone differ, and not the noise alone.
    assert abs(np.corrcoef(applied(1, SILENT), applied(2, SILENT))[0, 1]) < 0.9


def test_length_is_kept_and_the_peak_is_drawn():
    outputs = [applied(seed) for seed in range(30)]
    assert {(output.dtype, output.shape) for output in outputs} == {(np.dtype("float32"), WHITE.shape)}
    peaks = [np.abs(output).max() for output in outputs]
    assert 0.1 <= min(peaks) < 0.2 and 0.8 < max(peaks) <= 0.9
    assert not applied(0, samples=np.zeros(800)).any()


def test_seven_of_ten_rooms_reverberate():
    impulse = np.eye(1, 2 * SAMPLE_RATE)[0]
    # Without a room nothing is left 65 samples after the impulse, the microphone's half-length.
    tails = [np.abs(applied(seed, SILENT, impulse)[200:]).max() for seed in range(200)]
    assert 0.6 < np.mean(np.array(tails) > 1e-6) < 0.8


@pytest.mark.parametrize("seconds", [0.2, 0.6])
def test_reverberation_falls_by_60_db_in_its_time(seconds):
    response = channel.room(np.random.default_rng(0), seconds)
    assert response[0] == 1 and not response[1:32].any()  # the direct path, then 2 ms of nothing
    blocks = response[32:][: (len(response) - 32) // 160 * 160].reshape(-1, 160)
    decibels = 10 * np.log10(np.mean(blocks**2, axis=1))
    slope = np.polyfit(np.arange(len(blocks)) * 160 / SAMPLE_RATE, decibels, 1)[0]
    assert slope * seconds == pytest.approx(-60, abs=3)


def test_reverberation_is_0_to_15_db_below_the_direct_path():
    ratios = [-10 * np.log10(np.sum(channel.room(np.random.default_rng(s), 0.3)[1:] ** 2)) for s in range(60)]
    assert -1e-6 <= min(ratios) < 1 and 13 < max(ratios) <= 15


def test_microphone_stays_within_its_decibels():
    hertz = [300, 800, 1800, 3500, 5500, 7200]
    gains = [
        20 * np.log10(np.abs(freqz(channel.microphone(np.random.default_rng(seed)), worN=hertz, fs=SAMPLE_RATE)[1]))
        for seed in range(30)
    ]
    assert -8.5 < np.min(gains) < -7 and 7 < np.max(gains) < 8.5


def test_noise_falls_as_a_power_of_the_frequency_between_0_and_2():
    slopes = []
    for seed in range(40):
        power = np.abs(np.fft.rfft(channel.noise(np.random.default_rng(seed), 8000))[10:]) ** 2
        slopes.append(np.polyfit(np.log(np.arange(10, 4001)), np.log(power), 1)[0])
    assert -2.1 < min(slopes) < -1.8 and -0.2 < max(slopes) < 0.1
