"""Decoding, and the one form in which the pipeline keeps speech: 16 kHz, mono, 16 bits."""

import math
import os
import stat
from typing import BinaryIO

import numpy as np
import soundfile

from src.runtime import media
from src.runtime.containers import audio_size, media_format, mp3_states_length
from src.runtime.errors import AudioError, reason

SAMPLE_RATE = 16_000
LOWEST_RATE = 8_000
MAX_SECONDS = 60.0  # that an encoder hears at once, unless told: the memory that it takes grows with the length
# Windows of that length that a recording has at most. More speech helps while there is little: bench/windows.py.
WINDOWS = 5
SHORTEST = 0.3  # seconds; the encoder is not held to anything below
SILENCE = 1e-4  # standard deviation, full scale 1: three steps of 16-bit audio
CLIPPED = 0.01  # share of the samples that stay at the peak from which on a recording is refused
# Correlation of the levels of two channels below which they hold different sounds. Measured on 45 speakers: at most 0.78
# for two speakers (1 s), at least 0.83 for one in two reverberations of 0.4 s, 0.93 with as many noises at -5 dB.
SAME_SOUND = 0.8
OPPOSITE = -0.7  # correlation of two channels below which their average has lost 8 dB; a delay of 1 ms leads to -0.6
_QUIET = 0.01  # peak, full scale 1, under which few steps of quantisation look like clipping
_BLOCK = 1 << 18  # samples decoded at once, so that a header's false length allocates nothing
_MARGIN = 0.25  # seconds decoded beyond a cut: more than the resampling filter looks ahead
_UNKNOWN = 2**62  # frames: from here on libsndfile says that it does not know
_MP3_PADDING = 2 * 1152  # samples by which an MP3's announced length may be off


def decode(file: BinaryIO, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Samples float32 [n, channels] and sample rate in Hz of an open binary file.

    With `seconds`, little more than the first `seconds` are decoded. A length that the writer could not know (it wrote
    to a pipe, or was killed) is no length: such a file is read to its end. What libsndfile does not know, and FFmpeg does,
    PyAV decodes. Raises AudioError when the file is empty, cannot be decoded, or ends before it says it does (within the
    part that is decoded).
    """
    if not file.seek(0, os.SEEK_END):
        raise AudioError("empty")
    if kind := media_format(file):
        return media.decode(file, kind, None if seconds is None else seconds + _MARGIN)
    try:
        size = audio_size(file)
        with _Stream(_Patched(file, size)) as sound:
            rate = sound.samplerate
            announced = 0 if sound.frames >= _UNKNOWN else sound.frames
            limit = math.inf if seconds is None else math.ceil((seconds + _MARGIN) * rate)
            blocks, got, frames = [], 0, max(1, _BLOCK // sound.channels)
            while got < limit:
                block = sound.read(min(frames, limit - got), dtype="float32", always_2d=True)
                if not len(block):
                    break
                blocks.append(block)
                got += len(block)
            if sound.format == "MP3":  # its length is an estimate, unless the encoder left a note of it
                announced = announced - _MP3_PADDING if mp3_states_length(file) else 0
    except soundfile.SoundFileError as error:
        raise AudioError(_explained(error)) from None
    if got < min(announced, limit) or (got < limit and size and size.cut):
        raise AudioError(f"truncated: it ends after {got / rate:.2f} s")
    if not got:
        raise AudioError("empty")
    return np.concatenate(blocks), rate


def undecodable(file: BinaryIO) -> str | None:
    """Why an open binary file cannot be decoded, judged by its header; None where it can."""
    if kind := media_format(file):
        return media.undecodable(file, kind)
    try:
        _Stream(_Patched(file, audio_size(file))).close()
    except soundfile.SoundFileError as error:
        return _explained(error)
    return None


def _explained(error):
    detail = getattr(error, "error_string", str(error)).removeprefix("Error : ").rstrip(".")
    return f"not decodable: {' '.join(detail.split())}"


class _Stream(soundfile.SoundFile):
    """Read from the start to the end only: libsndfile cannot seek in a FLAC of unknown length."""

    def seekable(self):
        return False


class _Patched:
    """An open binary file, with the size of its audio in the place of a placeholder.

    It has no name: by the ending of a name, soundfile takes a file for samples without a header.
    """

    def __init__(self, file, size):
        file.seek(0)
        self.file, self.seek, self.tell = file, file.seek, file.tell
        self.offset, self.patch = (size.offset, size.patch()) if size and size.placeholder else (0, b"")

    def read(self, count):
        start = self.tell()
        data = bytearray(self.file.read(count))
        first, last = max(start, self.offset), min(start + len(data), self.offset + len(self.patch))
        if first < last:
            data[first - start : last - start] = self.patch[first - self.offset : last - self.offset]
        return bytes(data)


def decode_path(path: str | os.PathLike, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """`decode` of a file on disk. Raises AudioError, with the reason, where it cannot be opened."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise AudioError("not a regular file")
        with open(path, "rb") as file:
            return decode(file, seconds)
    except FileNotFoundError:
        raise AudioError("dangling link" if os.path.islink(path) else "no such file") from None
    except OSError as error:
        raise AudioError(f"unreadable: {reason(error)}") from None


def prepare(
    samples: np.ndarray,
    rate: int,
    min_seconds: float = SHORTEST,
    max_seconds: float | None = None,
    channel: int | None = None,
) -> np.ndarray:
    """Speech as the pipeline keeps it: int16 [n] at 16 kHz.

    samples: float32 [n] or [n, channels], full scale 1, at `rate` Hz. Channels are averaged, or one of them is taken
    (`channel`, from 1), a constant offset that outweighs all else is taken off, the rate is converted by soxr (HQ), what
    is longer than `max_seconds` is cut, and a level above full scale is scaled to it. 16-bit mono at 16 kHz passes
    through unchanged. Raises AudioError when the result would be silent, shorter than `min_seconds`, or is not speech at all (no samples,
    NaN, infinite), and where CLIPPED of the samples or more are clipped, which nothing brings back.
    """
    if rate < LOWEST_RATE:
        raise AudioError(f"sample rate: {rate} Hz, under {LOWEST_RATE} Hz")
    if not samples.size:
        raise AudioError("empty")
    if channel is not None and samples.ndim == 2 and (count := samples.shape[1]) > 1:
        if channel > count:
            raise AudioError(f"no channel {channel}: it has {count}")
        samples = samples[:, channel - 1]
    if not np.isfinite(samples).all():
        raise AudioError("NaN or infinite samples")
    speech = _fit(samples)
    if speech.ndim == 2:
        speech = speech.mean(axis=1, dtype=np.float32)
    offset = speech.mean(dtype=np.float64)
    if abs(offset) > speech.std(dtype=np.float64):
        speech = _fit(speech - np.float32(offset))
    if rate != SAMPLE_RATE:
        speech = _fit(_resampled(speech, rate))
    if max_seconds is not None:
        speech = speech[: round(max_seconds * SAMPLE_RATE)]
    if len(speech) < min_seconds * SAMPLE_RATE:
        raise AudioError(f"too short: {len(speech) / SAMPLE_RATE:.2f} s")
    if speech.std(dtype=np.float64) < SILENCE:
        raise AudioError("silent")
    if (share := _clipped(samples)) >= CLIPPED:
        raise AudioError(f"clipped: {share:.0%} of the samples stay at the peak")
    return np.clip(np.rint(speech * 32768), -32768, 32767).astype(np.int16)


def _resampled(speech, rate):
    try:
        import soxr  # what runs a model on 16 kHz audio does without
    except ImportError:
        raise AudioError(f"sample rate: {rate} Hz; to convert it to {SAMPLE_RATE} Hz, install soxr") from None
    return soxr.resample(speech, rate, SAMPLE_RATE, quality="HQ")


def waveform(
    path: str | os.PathLike, max_seconds: float | None = None, channel: int | None = None
) -> tuple[np.ndarray, bool]:
    """(a recording as the pipeline's models hear it, float32 [n], 16 kHz, in [-1, 1]; whether `channels_differ`).

    Any rate and channel count; converted, checked and cut by `prepare`. The second is False where one channel is
    chosen. Raises AudioError as `decode_path` and `prepare`.
    """
    samples, rate = decode_path(path, max_seconds)
    pcm = prepare(samples, rate, max_seconds=max_seconds, channel=channel)
    return pcm.astype(np.float32) / 32768, channel is None and channels_differ(samples, rate)


def limits(max_seconds: float | None) -> tuple[float | None, int | None]:
    """(seconds of a recording that are used, samples of it that a model hears at once) by --max-seconds; None: all."""
    return (None, None) if max_seconds is None else (WINDOWS * max_seconds, round(max_seconds * SAMPLE_RATE))


def channels_differ(samples: np.ndarray, rate: int) -> bool:
    """Whether channels hold different sounds, as the two sides of a call, or cancel each other out when averaged.

    samples: float32 [n] or [n, channels] at `rate` Hz. Of the channels within 20 dB of the loudest, the levels over time are
    compared with those of the loudest; those of one voice go together also where microphones, delays and noise differ.
    """
    if samples.ndim == 1:
        return False
    level = samples.std(axis=0)
    loud = samples[:, level > 0.1 * level.max()]
    frame = rate // 40  # 25 ms
    frames = len(samples) // frame
    if loud.shape[1] < 2 or frames < 2:
        return False
    levels = np.sqrt(np.square(loud[: frames * frame]).reshape(frames, frame, -1).mean(axis=1))
    loudest = loud.std(axis=0).argmax()
    with np.errstate(invalid="ignore"):  # steady levels have no correlation: NaN, which is below nothing
        together, opposite = (np.corrcoef(values, rowvar=False)[loudest] for values in (levels, loud))
    return bool((together < SAME_SOUND).any() or (opposite < OPPOSITE).any())


def _clipped(samples):
    """Share of the samples, in the worst channel, that are at the channel's peak as are both their neighbours."""
    level = np.abs(samples.reshape(len(samples), -1))
    peak = level.max(axis=0)
    at = level == np.where(peak < _QUIET, np.inf, peak)
    return (at[:-2] & at[1:-1] & at[2:]).sum(axis=0).max() / len(samples)


def _fit(samples):
    """Scaled down to full scale where above it; otherwise as it is."""
    peak = np.abs(samples).max(initial=0)  # of a rate that no device has, resampling may leave nothing
    return samples / peak if peak > 1 else samples
