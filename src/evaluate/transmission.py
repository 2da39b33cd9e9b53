"""What calls, files and rooms do to speech on its way: codecs of telephony and of the internet, and reverberation.

Length and position stay: the delay of a codec is taken off, by libsndfile or here.
"""

import io
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from scipy.signal import fftconvolve

from src.runtime.audio import SAMPLE_RATE
from src.sources.channel import room

REVERBERATION = 0.3, 0.8  # seconds in which it falls by 60 dB: from a furnished room to a hall


@dataclass(frozen=True)
class Codec:
    """How soundfile encodes: at `rate` Hz, the rest as it names them. By libsndfile's source (ogg_opus.c,
    mpeg_l3_encode.c) a level means 256 - 250 · level kbit/s in Opus and, below 32 kHz, 160 - 152 · level in MP3, cut to
    whole kbit/s. delay: samples that the decoded speech comes late."""

    rate: int
    format: str
    subtype: str
    level: float | None = None
    mode: str | None = None
    delay: int = 0


CODECS = {
    "alaw": Codec(8_000, "WAV", "ALAW"),  # ITU-T G.711, the fixed network: 64 kbit/s
    "gsm": Codec(8_000, "WAV", "GSM610"),  # GSM 06.10 full rate: 13 kbit/s
    "opus": Codec(16_000, "OGG", "OPUS", 0.976),  # RFC 6716: 12 kbit/s, variable
    "mp3": Codec(
        16_000, "MP3", "MPEG_LAYER_III", 0.84, "CONSTANT", 1105
    ),  # 32 kbit/s, whose frames have no place for LAME's note of the delay
}


def encode(codec: Codec, waveform: np.ndarray) -> bytes:
    """The file that a codec makes of a waveform, float32 [n] at SAMPLE_RATE; what exceeds full scale is clipped."""
    samples = waveform if codec.rate == SAMPLE_RATE else soxr.resample(waveform, SAMPLE_RATE, codec.rate)
    file = io.BytesIO()
    soundfile.write(
        file,
        np.clip(samples, -1, 1),  # beyond it libsndfile's tables of A-law end
        codec.rate,
        codec.subtype,
        format=codec.format,
        compression_level=codec.level,
        bitrate_mode=codec.mode,
    )
    return file.getvalue()


def transmit(name: str, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A waveform, float32 [n] at 16 kHz in [-1, 1], as it arrives: float32 [n].

    name: one of CODECS, or "reverberation", whose room `rng` chooses: a decay of REVERBERATION seconds, the direct sound 0
    to 15 dB above the rest.
    """
    if name == "reverberation":
        heard = fftconvolve(waveform, room(rng, rng.uniform(*REVERBERATION)))[: len(waveform)]
        return (heard / max(1, np.abs(heard).max())).astype(np.float32)
    codec = CODECS[name]
    decoded = soundfile.read(io.BytesIO(encode(codec, waveform)), dtype="float32")[0][codec.delay :]
    if codec.rate != SAMPLE_RATE:
        decoded = soxr.resample(decoded, codec.rate, SAMPLE_RATE)
    return np.pad(decoded, (0, max(0, len(waveform) - len(decoded))))[: len(waveform)]
