"""Embeddings without a model: what channel, room and timbre alone tell of a speaker."""

from collections.abc import Sequence

import numpy as np

from src.data.manifest import Row
from src.data.recordings import load_audio
from src.runtime.audio import SAMPLE_RATE

WINDOW, HOP, MELS = 400, 160, 80
_FLOOR = 1e-10  # of power, so that silence has a logarithm


def embed(rows: Sequence[Row]) -> np.ndarray:
    """Mean and standard deviation over time of log-mel features: float64 [rows, 2 * MELS]. Errors as
    `load_audio`."""
    statistics = []
    for row in rows:
        features = log_mel(load_audio(row))
        statistics.append(np.concatenate([features.mean(axis=0), features.std(axis=0)]))
    return np.stack(statistics)


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """Natural logarithm of mel powers: float64 [frames, MELS] of a waveform [samples] at 16 kHz.

    Hamming windows of 25 ms, 10 ms apart, whole ones only; power spectrum; triangular filters evenly spaced
    in mel from 0 to 8 kHz.
    """
    frames = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hamming(WINDOW))) ** 2
    return np.log(np.maximum(power @ _filters(), _FLOOR))


def _filters():
    """Triangles [bins, MELS]; mel is 2595 log10(1 + hertz / 700)."""
    corners = 700 * (10 ** (np.linspace(0, np.log10(1 + SAMPLE_RATE / 2 / 700), MELS + 2)) - 1)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    bins = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)[:, None]
    return np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
