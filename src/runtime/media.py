"""Decoding by PyAV (FFmpeg), where it is installed, of what libsndfile does not know."""

import contextlib
import math
from typing import BinaryIO

import numpy as np

from src.runtime.errors import AudioError

_SLACK = 0.1  # seconds by which an announced length may be off: an encoder's delay, a last frame


def decode(file: BinaryIO, kind: tuple[str, str], seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Samples float32 [n, channels], full scale 1, and sample rate in Hz of the best audio stream of an open file.

    kind: as `media_format` gives it. With `seconds`, little more than the first `seconds` are decoded. Raises AudioError
    when PyAV is not installed, the file cannot be decoded, or it ends before it says it does (within the part that is
    decoded).
    """
    blocks: list[np.ndarray] = []
    got, rate, limit = 0, 0, math.inf
    with _opened(file, kind) as (av, container, stream):
        planes = av.AudioResampler(format="fltp")  # of the sample format alone
        for frame in container.decode(stream):
            if not rate:
                rate = frame.sample_rate
                limit = math.inf if seconds is None else math.ceil(seconds * rate)
            for part in planes.resample(frame):
                blocks.append(part.to_ndarray().T)
                got += part.samples
            if got >= limit:
                break
        announced = _announced(av, container, stream)
    if not got:
        raise AudioError("empty")
    if got < limit and got < (announced - _SLACK) * rate:
        raise AudioError(f"truncated: it ends after {got / rate:.2f} s")
    return np.concatenate(blocks)[: got if limit == math.inf else int(limit)], rate


def undecodable(file: BinaryIO, kind: tuple[str, str]) -> str | None:
    """Why an open file cannot be decoded, judged by its header; None where it can."""
    try:
        with _opened(file, kind):
            return None
    except AudioError as error:
        return str(error)


@contextlib.contextmanager
def _opened(file, kind):
    """(the module av, the container, its best audio stream). What FFmpeg raises in the block becomes AudioError."""
    name, demuxer = kind
    try:
        import av
    except ImportError:
        raise AudioError(f"{name}: to decode it, install PyAV (requirements-media.txt)") from None
    file.seek(0)
    try:
        # The demuxer is named: others open whatever files and addresses a playlist names.
        with av.open(file, format=demuxer, metadata_errors="replace") as container:
            stream = container.streams.best("audio")
            if stream is None:
                raise AudioError(f"not decodable: no audio in this {name}")
            yield av, container, stream
    except (av.FFmpegError, ValueError) as error:  # ValueError: the rate or the channels change on the way
        raise AudioError(f"not decodable: {getattr(error, 'strerror', None) or error}") from None


def _announced(av, container, stream):
    """Seconds that the header says; 0 where it says nothing."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base
