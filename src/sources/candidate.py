"""One utterance offered by a source of speech, before it is decoded or checked."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Candidate:
    """An utterance a source offers. Nothing is decoded until `read` is called.

    `read()` gives (samples float32 [n] or [n, channels], sample rate in Hz) or raises AudioError.
    `batch` names what is fetched in one go: of a speaker's utterances those of the largest batch are
    taken first. Sources for which every utterance costs the same leave it alone. `sex` is the speaker's, one
    of SEXES or empty; `part` is the data set's own split, empty where it has none. Names are kept in Unicode's form
    NFC, in which they are compared.
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
