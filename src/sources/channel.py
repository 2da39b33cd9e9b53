"""What stands between a mouth and a file: a room, a microphone, noise."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import fftconvolve, firwin2

from src.runtime.audio import SAMPLE_RATE


def room(rng: np.random.Generator, reverberation_seconds: float) -> np.ndarray:
    """Impulse response of a small room: a direct path, then exponentially decaying noise.

    The tail falls by 60 dB in `reverberation_seconds`; its energy is set against the direct path's by a
    ratio of 0 to 15 dB.
    """
    length = max(2, int(reverberation_seconds * SAMPLE_RATE))
    time = np.arange(length) / SAMPLE_RATE
    tail = rng.standard_normal(length) * 10 ** (-3 * time / reverberation_seconds)
    tail[: int(0.002 * SAMPLE_RATE)] = 0
    direct_to_tail = 10 ** (rng.uniform(0, 15) / 20)
    tail /= max(float(np.linalg.norm(tail)), 1e-9) * direct_to_tail
    tail[0] = 1
    return tail


def microphone(rng: np.random.Generator, decibels: float = 8) -> np.ndarray:
    """Linear-phase filter [129] with a random smooth response within ± `decibels`."""
    frequency = np.array([0, 100, 300, 800, 1800, 3500, 5500, 7200, 8000])
    gain = 10 ** (rng.uniform(-decibels, decibels, len(frequency)) / 20)
    return np.asarray(firwin2(129, frequency, gain, fs=SAMPLE_RATE))


def noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Stationary noise [samples] whose spectrum falls as 1 / f^a, a between 0 and 2."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    bins = np.maximum(np.arange(len(spectrum)), 1)
    return np.fft.irfft(spectrum * bins ** (-rng.uniform(0, 2) / 2), samples)


def apply(samples: ArrayLike, rng: np.random.Generator, snr_range: tuple[float, float] = (5, 30)) -> np.ndarray:
    """The samples [n] as another room, microphone and noise would have given them: float32 [n], peak 0.1 to 0.9."""
    out = np.asarray(samples, np.float64)
    if rng.random() < 0.7:
        out = fftconvolve(out, room(rng, rng.uniform(0.1, 0.7)))[: len(out)]
    out = fftconvolve(out, microphone(rng), mode="same")
    background = noise(rng, len(out))
    power = np.mean(out**2)
    out = out + background * np.sqrt(power / np.mean(background**2) / 10 ** (rng.uniform(*snr_range) / 10))
    return (out / max(np.abs(out).max(), 1e-9) * rng.uniform(0.1, 0.9)).astype(np.float32)
