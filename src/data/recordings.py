"""The audio of the manifest: 16 kHz, mono, 16 bits, as FLAC."""

import contextlib
import functools
import io
from pathlib import Path

import numpy as np
import soundfile

from src.data.manifest import Row
from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError, reason


def save(path: str | Path, pcm: np.ndarray) -> None:
    """Write int16 [n] at 16 kHz as FLAC. Raises InputError when it cannot be written (a full disk)."""
    encoded = io.BytesIO()  # libsndfile does not tell that its last bytes found no place on a disk
    soundfile.write(encoded, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    try:
        Path(path).write_bytes(encoded.getbuffer())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {reason(error)}") from None


def load_audio(row: Row) -> np.ndarray:
    """The audio of a manifest row: float32 [n], 16 kHz, in [-1, 1]. Raises InputError when it cannot be read."""
    return load_path(row.path)


def load_path(path: str | Path) -> np.ndarray:
    """`load_audio` of the row with this path."""
    with _opened(path) as sound:
        return sound.read(dtype="float32")


class Waveform:
    """The audio of a manifest row, read from its file when it is asked for: `len` and slices, without a step, of what
    `load_audio` gives. Errors as there."""

    def __init__(self, row: Row):
        self.row = row

    @functools.cached_property
    def _samples(self):
        with _opened(self.row.path) as sound:
            return sound.frames

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, part: slice) -> np.ndarray:
        with _opened(self.row.path) as sound:
            start, stop, _ = part.indices(sound.frames)
            sound.seek(start)
            return sound.read(max(0, stop - start), dtype="float32")


@contextlib.contextmanager
def _opened(path):
    try:
        with soundfile.SoundFile(path) as sound:
            yield sound
    except (OSError, soundfile.SoundFileError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run the stage sample_data") from None
