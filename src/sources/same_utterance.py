"""Whether two recordings are of one utterance: from two microphones, or in two encodings."""

import numpy as np
from scipy.fft import irfft, rfft

from src.runtime.audio import SAMPLE_RATE

SAME = 25.0  # from this `similarity` on
_SIZE = 1 << 16  # samples of the transform
_SECONDS = 3.0  # that are compared, from the start
_SHIFT = 0.5  # seconds by which one may be late; together they are within _SIZE
_BAND = (200, 4000)  # Hz: what a telephone passes, without hum
_LENGTHS = 0.1  # seconds by which the lengths of one utterance may differ


def fingerprint(pcm: np.ndarray) -> tuple[int, np.ndarray]:
    """What `similarity` compares, of int16 [n] at 16 kHz: n, and the phases of the band's spectrum, complex64."""
    first, last = (round(hertz * _SIZE / SAMPLE_RATE) for hertz in _BAND)
    spectrum = rfft(pcm[: round(_SECONDS * SAMPLE_RATE)].astype(np.float32), _SIZE)[: last + 1]
    spectrum /= np.abs(spectrum) + np.float32(1e-9)
    spectrum[:first] = 0
    return len(pcm), spectrum


def similarity(first: tuple[int, np.ndarray], second: tuple[int, np.ndarray]) -> float:
    """The peak of the generalised cross-correlation with phase transform (Knapp and Carter 1976), in units of its
    standard deviation over all shifts; 0 where the lengths differ.

    Measured on pairs of one speaker: of different utterances 5 (median) and at most 14, of synthetic ones 18; of one
    utterance through two simulated rooms and microphones at 5 or 15 dB of noise 46, rarely under 25; as MP3 or Opus 81.
    """
    if abs(first[0] - second[0]) > _LENGTHS * SAMPLE_RATE:
        return 0.0
    correlation = irfft(first[1] * second[1].conj())
    reach = round(_SHIFT * SAMPLE_RATE * len(correlation) / _SIZE)
    near = np.concatenate([correlation[-reach:], correlation[: reach + 1]])
    return float(np.abs(near).max() / near.std())
