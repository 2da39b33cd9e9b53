"""A reader of recordings that takes its time; in a module, for other processes to import."""

import time

from src.runtime.audio import waveform


def slow_waveform(path):
    time.sleep(0.1)
    return waveform(path)
