"""The files of a checkpoint: in a folder as SpeechBrain publishes or as its training leaves it, or from the hub.

A training leaves `hyperparams.yaml` in its output folder and, in `save`, `label_encoder.txt` and a folder for each
checkpoint, `CKPT+<time>`, with the weights and `CKPT.yaml`. The output folder, `save` and a checkpoint's folder are all
taken for the whole.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.common.files import looked_for
from src.runtime.errors import InputError

HYPERPARAMS, LABELS = "hyperparams.yaml", "label_encoder.txt"
_SAVED, _ABOUT = "CKPT*", "CKPT.yaml"  # what SpeechBrain's Checkpointer calls its folders, and a file in each
# Bytes: far more than any file of this family has, and no more than can be read at once.
_LARGEST = {HYPERPARAMS: 2**16, _ABOUT: 2**16, LABELS: 2**22}
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
    """Path of a file of a checkpoint, HYPERPARAMS or LABELS; None where it has no such file.

    `source` is a folder, or a hub id of which just this file is fetched, at `revision` (None: the newest). In what a
    training leaves, the file may lie above a checkpoint's folder, or in `save`. A link in a folder is followed wherever
    it leads: the hub's own cache is made of links, and what is read is not executed. Raises InputError when `source` is
    neither, for what `src.common.hub.fetch` does, and when the file is not a regular one or larger than any of its
    kind.
    """
    if not is_folder(source):
        return _fetched(source, name, revision)
    folder = Path(os.path.abspath(source))
    above = 2 if folder.match(_SAVED) else 1 if any(folder.glob(f"{_SAVED}/{_ABOUT}")) else 0
    places = [folder, *folder.parents[:above], folder / "save"]
    return next(filter(None, (_regular(source, place / name) for place in places)), None)


def find_weights(source: str | Path, names: Sequence[str], revision: str | None = None) -> Path | None:
    """Path of the file of weights: the first of these paths below `source` that is there, otherwise the file of that name
    in the newest checkpoint of a training; None where there is none. Raises InputError as `find`."""
    if not is_folder(source):
        return next(filter(None, (_fetched(source, name, revision) for name in names)), None)
    folder = Path(os.path.abspath(source))
    places = [
        *(folder / name for name in names),
        *(saved / Path(names[0]).name for saved in _newest_first(source, folder)),
    ]
    return next(filter(None, (_regular(source, place) for place in places)), None)


def _newest_first(source, folder) -> Iterator[Path]:
    """The folders of checkpoints in what a training leaves."""
    saved = [*folder.glob(_SAVED), *folder.glob(f"*/{_SAVED}")]
    return iter(sorted(filter(Path.is_dir, saved), key=lambda path: (_time(source, path), path.name), reverse=True))


def _time(source, saved):
    """When a checkpoint was saved, in seconds, as it says itself: copies have other times."""
    about = _regular(source, saved / _ABOUT)
    text = about.read_bytes().decode("utf-8", "replace") if about else ""
    said = re.search(r"^unixtime: *(\d+(\.\d*)?)\s*$", text, re.MULTILINE | re.ASCII)
    return float(said[1]) if said else 0.0


def _fetched(source, name, revision):
    from src.common import hub  # the network's libraries are for those who ask for it

    lock = hub.Lock("models", str(source), revision, f"{where(source)}, no folder, so from the hub")
    return hub.fetch(lock, name, _largest(name))


def _regular(source, path):
    """The path, if there is something; it must be a file that is not too large."""
    if not os.path.lexists(path):
        return None
    if not os.path.isfile(path):
        raise InputError(f"{where(source)}: {path.name} is not a regular file")
    size, largest = path.stat().st_size, _largest(path.name)
    if size > largest:
        raise InputError(f"{where(source)}: {path.name} has {size:,} bytes; {largest:,} are the most that is read")
    return path


def _largest(name):
    return _LARGEST.get(name, _LARGEST_WEIGHTS)
