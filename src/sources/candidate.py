"""What a source of speech offers: utterances, before they are decoded or checked."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Skipped = tuple[str, str, str]  # utt_id, speaker, reason


@dataclass(frozen=True)
class Candidate:
    """An utterance a source offers. Nothing is decoded until `read` is called.

    `read()` gives (samples float32 [n] or [n, channels], sample rate in Hz) or raises AudioError.
    `batch` names what is fetched in one go: of a speaker's utterances those of the largest batch are
    taken first. Sources for which every utterance costs the same leave it alone. `sex` is the speaker's: f, m
    or empty; `part` is the data set's own split, empty where it has none. Names are kept in Unicode's form NFC, in
    which they are compared.
    """

    utt_id: str
    speaker: str
    read: Callable[[], tuple[np.ndarray, int]]
    batch: int = 0
    sex: str = ""
    part: str = ""

    def __post_init__(self):
        for name in ("utt_id", "speaker"):
            object.__setattr__(self, name, unicodedata.normalize("NFC", getattr(self, name)))


@dataclass(frozen=True)
class Offer:
    """What may be sampled, what a trial list names and its trials, what cannot be used, and what is to be said."""

    candidates: list[Candidate]
    tested: list[Candidate] = field(default_factory=list)
    trials: list[tuple[int, str, str]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
