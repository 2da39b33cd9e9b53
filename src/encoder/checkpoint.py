"""The files of a checkpoint in SpeechBrain's pretrained layout: in a folder, or from the hub."""

import os
import re
from pathlib import Path

from src.common.files import looked_for
from src.runtime.errors import InputError

HYPERPARAMS, LABELS = "hyperparams.yaml", "label_encoder.txt"
# Bytes: far more than any file of this family has, and no more than can be read at once.
_LARGEST = {HYPERPARAMS: 2**16, LABELS: 2**22}
_LARGEST_WEIGHTS = 2**32


def where(source: str | Path) -> str:
    """How messages name a checkpoint."""
    return f"encoder.source: {source}"


def is_folder(source: str | Path) -> bool:
    """Whether `source` is a folder; otherwise it is a hub id (owner/name), or InputError is raised."""
    if os.path.isdir(source):
        return True
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)):
        raise InputError(f"{where(source)}: no such folder, and not a hub id (owner/name){looked_for(source)}")
    return False


def find(source: str | Path, name: str, revision: str | None = None) -> Path | None:
    """Path of a file of a checkpoint; None where it has no such file.

    `source` is a folder, or a hub id of which just this file is fetched, at `revision` (None: the newest). A link in
    a folder is followed wherever it leads: the hub's own cache is made of links, and what is read is not executed.
    Raises InputError when `source` is neither, for what `src.common.hub.fetch` does, and when the file is not a
    regular one or larger than any of its kind.
    """
    largest = _LARGEST.get(name, _LARGEST_WEIGHTS)
    if not is_folder(source):
        from src.common import hub  # the network's libraries are for those who ask for it

        lock = hub.Lock("models", str(source), revision, f"{where(source)}, no folder, so from the hub")
        return hub.fetch(lock, name, largest)
    path = Path(source, name)
    if not os.path.lexists(path):
        return None
    if not os.path.isfile(path):
        raise InputError(f"{where(source)}: {name} is not a regular file")
    size = path.stat().st_size
    if size > largest:
        raise InputError(f"{where(source)}: {name} has {size:,} bytes; {largest:,} are the most that is read")
    return path
