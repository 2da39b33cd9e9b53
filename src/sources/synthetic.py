"""Synthetic speakers: speech from espeak-ng for a pipeline that has to run anywhere.

A speaker is a voice variant, the accent of a language, a pitch with its range, a speaking rate and a vocal-tract
length; an utterance adds words, a mood and a channel. Nothing of it sounds like a real person.
"""

import functools
from dataclasses import dataclass

import numpy as np
import soxr

from src.runtime.audio import SAMPLE_RATE
from src.sources import channel
from src.sources.candidate import Candidate
from src.sources.espeak import RATE, say

_VARIANTS = (
    "adam anika antonio aunty belinda benjamin boris caleb david ed edward f1 f2 f3 f4 f5 grandma grandpa gustave "
    "ian iven john kaukovalta klatt klatt3 linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel norbert pablo "
    "paul pedro quincy rob robert sandro shelby steph travis victor Alicia Andrea Andy Annie Denis Diogo Gene "
    "Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed zac"
).split()
# espeak-ng's variants say so of every woman's voice. Those that say nothing have the pitch of its base voice, a
# man's, but for these two.
_WOMEN = frozenset("anika aunty belinda f1 f2 f3 f4 f5 grandma linda steph Alicia Andrea Annie".split())
_NEITHER = frozenset(("shelby", "zac"))
_ACCENTS = (
    "en-us en-gb-scotland en-gb-x-rp en-029 de fr es it pt-br nl sv da nb pl cs ru tr fi hu ro el hi id vi af ga cy "
    "et lv lt sk sl hr ca eo sw"
).split()
_WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem "
    "hand part place case week company system program question work government number night point home water room "
    "mother area money story fact month lot right study book eye job word business issue side kind head house "
    "service friend father power hour game line end member law car city community name president team minute idea "
    "body information back parent face others level office door health person art war history party result change "
    "morning reason research girl guy moment air teacher force education river garden winter summer yellow purple "
    "twenty seven nine eleven thousand quiet loud gentle careful open close carry follow remember believe travel "
    "listen answer measure borrow forget promise wonder because although whenever somewhere together perhaps never"
).split()
_MIN_WORDS, _MAX_WORDS = 6, 14
# Of the speakers that are evaluated: how many share a voice, and the noise in dB.
FAMILY, SNR_RANGE = 8, (0, 15)


@dataclass(frozen=True)
class Speaker:
    """How one synthetic speaker speaks; tract is the vocal tract's length relative to the variant's own."""

    voice: str
    pitch: int
    pitch_range: int
    words_per_minute: int
    tract: float

    @property
    def sex(self) -> str:
        """That of the voice variant: f, m, or empty where it is neither's."""
        variant = self.voice.partition("+")[2]
        return "" if variant in _NEITHER else "f" if variant in _WOMEN else "m"

    @classmethod
    def draw(cls, rng: np.random.Generator, voice: str | None = None) -> "Speaker":
        drawn = f"{rng.choice(_ACCENTS)}+{rng.choice(_VARIANTS)}"
        return cls(
            voice=voice or drawn,
            pitch=int(rng.integers(20, 80)),
            pitch_range=int(rng.integers(20, 80)),
            words_per_minute=int(rng.integers(130, 210)),
            tract=float(rng.uniform(0.88, 1.14)),
        )


def utter(speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """One utterance before any channel: float32 samples [n] at 16 kHz."""
    text = " ".join(rng.choice(_WORDS, rng.integers(_MIN_WORDS, _MAX_WORDS + 1)))
    mood = rng.normal(size=3)
    spoken = say(
        text,
        speaker.voice,
        # A shorter tract is heard by playing faster, so the rate is set against it.
        words_per_minute=np.clip(speaker.words_per_minute * speaker.tract * (1 + 0.08 * mood[0]), 80, 450),
        pitch=np.clip(speaker.pitch + 6 * mood[1], 0, 99),
        pitch_range=np.clip(speaker.pitch_range + 10 * mood[2], 0, 99),
    )
    return soxr.resample(spoken, RATE / speaker.tract, SAMPLE_RATE, quality="HQ")


def _read(speaker, entropy, snr_range):
    rng = np.random.default_rng(entropy)
    return channel.apply(utter(speaker, rng), rng, snr_range), SAMPLE_RATE


def speaker(index: int, seed: int, group: str, family: int = 1) -> Speaker:
    """The speaker of that index. Speakers of different groups ("eval", "train") are never the same.

    `family` neighbours by index share a voice and an accent: told apart by pitch, rate and vocal tract alone.
    """
    origin = [seed, *group.encode()]
    voice = Speaker.draw(np.random.default_rng([*origin, index // family * family])).voice
    return Speaker.draw(np.random.default_rng([*origin, index]), voice)


def candidates(speakers: int, utterances: int, seed: int, group: str = "eval") -> list[Candidate]:
    """`utterances` candidates of each of `speakers` synthetic speakers, made when read; deterministic by seed.

    They are harder to tell apart than what the shipped encoder was trained on: families of similar voices, and
    more noise.
    """
    return [
        Candidate(
            utt_id=f"{group}{s:04d}/{u:03d}.flac",
            speaker=f"{group}{s:04d}",
            read=functools.partial(_read, person, [seed, *group.encode(), s, u], SNR_RANGE),
            sex=person.sex,
        )
        for s, person in enumerate(speaker(s, seed, group, FAMILY) for s in range(speakers))
        for u in range(utterances)
    ]
