"""espeak-ng through ctypes: text to samples."""

import _ctypes
import contextlib
import ctypes
import threading
from collections.abc import Iterator

import espeakng_loader
import numpy as np

from src.runtime.errors import InputError

RATE = 22_050

# Constants of espeak-ng's speak_lib.h.
_SYNCHRONOUS, _RATE, _PITCH, _RANGE, _UTF8 = 2, 1, 3, 4, 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_in_use = threading.Lock()  # the library keeps its state in global variables


@contextlib.contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    """The library as it is when a process loads it, initialised. Unloading it forgets its global variables.

    It frees all but some tables of a few languages (French, Hindi, Russian): 16 kB an utterance on average.
    """
    with _in_use:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
            yield library
        finally:
            library.espeak_Terminate()
            _ctypes.dlclose(library._handle)


def say(text: str, voice: str, *, words_per_minute: float, pitch: float, pitch_range: float) -> np.ndarray:
    """Speech of `text`: float32 samples [n] in [-1, 1] at RATE.

    voice is an espeak-ng voice with an optional variant ("en-us+f2"); words_per_minute lies in 80 to 450,
    pitch and pitch_range in 0 to 99. Raises InputError for a voice that espeak-ng does not have.

    The library's oscillators and noise run on from one utterance to the next, so each utterance is made by a library
    that was just loaded: the same arguments give the same samples whatever was said before. Threads may call this,
    and take turns.
    """
    pieces = []

    def receive(samples, count, _events):
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback, encoded = _CALLBACK(receive), text.encode()
    with _fresh_library() as library:
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # breath is noise, which would be seeded from the clock
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"espeak-ng has no voice {voice!r}")
        for setting, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(setting, int(value), 0)
        library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, _UTF8, None, None)
    if not pieces:
        raise InputError(f"espeak-ng failed on {text!r} with voice {voice!r}")
    return np.frombuffer(b"".join(pieces), np.int16).astype(np.float32) / 32768
