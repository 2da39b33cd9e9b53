"""espeak-ng through ctypes: text to samples."""

import ctypes
import functools
import multiprocessing
import os
import threading

import espeakng_loader
import numpy as np

from src.runtime.errors import InputError

RATE = 22_050

# Constants of espeak-ng's speak_lib.h.
_SYNCHRONOUS, _RATE, _PITCH, _RANGE, _UTF8 = 2, 1, 3, 4, 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


@functools.cache
def _library():
    return ctypes.CDLL(espeakng_loader.get_library_path())


def _synthesise(text, voice, settings):
    """(whether the voice exists, its 16-bit samples as bytes)."""
    library, pieces = _library(), []

    def keep(samples, count, _events):
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _CALLBACK(keep)
    library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # breath is noise, which would be seeded from the clock
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice) != 0:
        return False, b""
    for setting, value in settings.items():
        library.espeak_SetParameter(setting, value, 0)
    library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, _UTF8, None, None)
    return True, b"".join(pieces)


def say(text, voice, *, words_per_minute, pitch, pitch_range):
    """Speech of `text`: float32 samples [n] in [-1, 1] at RATE.

    voice is an espeak-ng voice with an optional variant ("en-us+f2"); words_per_minute lies in 80 to 450,
    pitch and pitch_range in 0 to 99. Raises InputError for a voice that espeak-ng does not have.

    The library's oscillators and noise run on from one utterance to the next, so each utterance is made in a
    process of its own: the same arguments give the same samples whatever was said before. Threads may call
    this side by side.
    """
    settings = {_RATE: int(words_per_minute), _PITCH: int(pitch), _RANGE: int(pitch_range)}
    found, spoken = _server().ask((text.encode(), voice.encode(), settings))
    if not found:
        raise InputError(f"espeak-ng has no voice {voice!r}")
    if not spoken:
        raise InputError(f"espeak-ng failed on {text!r} with voice {voice!r}")
    return np.frombuffer(spoken, np.int16).astype(np.float32) / 32768


class _Server:
    """A process that forks a child for each utterance. It is forked off early, while this process is small:
    forking a process that has since filled its memory with speech takes many times longer."""

    def __init__(self):
        _library()
        self.connection, theirs = multiprocessing.Pipe()
        self.process = os.fork()
        if self.process == 0:
            try:
                self.connection.close()
                _serve(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def ask(self, request):
        self.connection.send(request)
        return self.connection.recv()


_local = threading.local()
# Two servers forked at once would hold each other's pipes open, and neither would ever end.
_starting = threading.Lock()


def _server():
    """The calling thread's server; it ends when the thread's end of the pipe is closed."""
    if not hasattr(_local, "server"):
        with _starting:
            _local.server = _Server()
    return _local.server


def _serve(connection):
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            return
        child = os.fork()
        if child == 0:
            try:
                connection.send(_synthesise(*request))
            finally:
                os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            connection.send((True, b""))
