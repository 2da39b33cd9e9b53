"""The speakers that an encoder was trained on, read from its checkpoint's label file."""

import ast
import logging
import unicodedata
from pathlib import Path

from src.common.files import read_text
from src.encoder import checkpoint
from src.runtime.errors import InputError

_LONGEST = 1000  # characters of a line
# SpeechBrain's VoxCeleb recipe trains on VoxCeleb1-dev (1,211 speakers) and VoxCeleb2-dev (5,994). These
# leave out VoxCeleb1's 40 test speakers, also where a copy's label file just numbers its speakers.
_VOXCELEB_DEV = 1_211 + 5_994
_VOXCELEB1_TEST = frozenset(f"id{number}" for number in range(10_270, 10_310))
_log = logging.getLogger(__name__)


def training_speakers(source: str, revision: str | None = None) -> set[str]:
    """Names, in Unicode's normal form C, of the training speakers of a checkpoint in SpeechBrain's pretrained layout.

    `source` is a folder or a hub id, of which just the label file is fetched, at `revision`. A checkpoint
    without that file gives an empty set, and a warning is logged. Raises InputError as `checkpoint.find`, and
    when the file is not SpeechBrain's. VoxCeleb1's test speakers never count as trained on by a VoxCeleb-dev
    checkpoint.
    """
    file = checkpoint.find(source, checkpoint.LABELS, revision)
    if file is None:
        _log.warning("%s has no %s: all speakers count as unseen", checkpoint.where(source), checkpoint.LABELS)
        return set()
    speakers = parse(file)
    return speakers - _VOXCELEB1_TEST if len(speakers) == _VOXCELEB_DEV else speakers


def parse(file: Path) -> set[str]:
    """Labels that SpeechBrain's CategoricalEncoder saved, as lines `'label' => index` down to a `====` line; in
    Unicode's normal form C."""
    labels = set()
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.startswith("===="):
            return labels
        label = line.rpartition(" => ")[0]
        try:
            if len(label) > _LONGEST:
                raise ValueError
            labels.add(unicodedata.normalize("NFC", str(ast.literal_eval(label))))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise InputError(f"{file}: line {number}: not SpeechBrain's `'label' => index`") from None
    raise InputError(f"{file}: not SpeechBrain's label file: it has no ==== line")
