"""A recording as a model hears it: its embedding, and what tells how far to trust that."""

import os
from typing import NamedTuple

import numpy as np
import onnxruntime

from src.runtime import engine
from src.runtime.audio import SAMPLE_RATE, limits, waveform

# dB of `signal_to_noise` below which a recording is noisy. Measured on 100 recordings: 20 to 50 as they are, 13 to 16 with
# white noise at 10 dB. Babble, which has pauses too, is not seen by it.
NOISY = 15.0
_FRAME = SAMPLE_RATE // 40  # 25 ms


class Voice(NamedTuple):
    """embedding: float32 [dim], as the model gives it; seconds: of the audio that was used; differ: whether channels that
    differ were averaged; snr: `signal_to_noise`."""

    embedding: np.ndarray
    seconds: float
    differ: bool
    snr: float


def heard(
    session: onnxruntime.InferenceSession,
    path: str | os.PathLike,
    max_seconds: float | None = None,
    channel: int | None = None,
) -> Voice:
    """A recording by a `session`. max_seconds: that the model hears at once (see `limits`); channel: as for `waveform`.
    Raises AudioError as `waveform` and `engine.embedding`."""
    most, window = limits(max_seconds)
    samples, differ = waveform(path, most, channel)
    return Voice(
        engine.embedding(session, samples, window), len(samples) / SAMPLE_RATE, differ, signal_to_noise(samples)
    )


def signal_to_noise(samples: np.ndarray) -> float:
    """An estimate, in dB, of how far speech lies over what sounds between words: between the level that a tenth of the 25 ms
    frames exceed and that which a tenth stay below. samples: float [n] at 16 kHz."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    quiet, loud = np.quantile(np.square(frames, dtype=np.float64).mean(axis=1), (0.1, 0.9))
    return float(10 * np.log10(loud / max(quiet, 1e-10))) if loud else 0.0
