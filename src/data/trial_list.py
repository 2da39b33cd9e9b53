"""Trial lists: VoxCeleb's `1 speaker/a.wav speaker/b.wav` or Kaldi's `speaker/a.wav speaker/b.wav target`."""

import os
import posixpath
import unicodedata
from pathlib import Path

from src.common.files import looked_for
from src.data.tables import read_text
from src.runtime.errors import InputError

# VoxCeleb1's test lists, as published and cleaned: https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html
OFFICIAL = {"veri_test.txt": 37_720, "veri_test2.txt": 37_611}
_FIRST, _LAST = {"1": 1, "0": 0}, {"target": 1, "nontarget": 0}
_FORMS = "`0 or 1, a file, a file` or `a file, a file, target or nontarget`"


def read_trial_list(path: str | Path, folder: str | Path | None = None, level: int = 1) -> list[tuple[int, str, str]]:
    """(target 1 or 0, enrolment, test) of every trial, in file order; blank lines are passed over.

    The names are normalised posix paths relative to the data folder, in Unicode's form NFC, as `utt_id` in the
    manifest; the folder of the speaker is that at `level`. With `folder`, each must be a file in it. Raises InputError,
    with the line, for a malformed line, a name that leads out of the folder, a missing file; also when target or
    non-target trials are missing, or when a file named as one of the OFFICIAL lists has another number of trials.
    """
    trials, names = [], {}
    for number, line in enumerate(read_text(path, looked_for(path).removeprefix("; ")).split("\n"), start=1):
        if not (parts := line.split()):
            continue
        if len(parts) != 3:  # names with spaces in them
            parts = [part.strip() for part in line.split("\t")]
        where = f"{path}: line {number}"
        target, pair = _parsed(parts, where)
        for name in pair:
            if name not in names:
                names[name] = _checked(name, folder, level, where)
        trials.append((target, *(names[name] for name in pair)))
    if {target for target, _, _ in trials} != {0, 1}:
        raise InputError(f"{path}: target (1) and non-target (0) trials are both needed")
    expected = OFFICIAL.get(Path(path).name, len(trials))
    if len(trials) != expected:
        raise InputError(f"{path}: {len(trials):,} trials; VoxCeleb1's list of this name has {expected:,}")
    return trials


def _parsed(parts, where):
    readings = []
    if len(parts) == 3:
        readings += [(_FIRST[parts[0]], parts[1:])] if parts[0] in _FIRST else []
        readings += [(_LAST[parts[2]], parts[:2])] if parts[2] in _LAST else []
    if len(readings) != 1:
        fault = "both" if readings else "not"
        raise InputError(f"{where}: {fault} {_FORMS}: {' '.join(parts)[:80]!r}")
    return readings[0]


def locate(folder: str | Path, name: str) -> str | None:
    """The path of the file of that name in a folder, whichever of Unicode's normal forms the file system keeps."""
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((path for form in forms if os.path.isfile(path := os.path.join(folder, form))), None)


def _checked(name, folder, level, where):
    path = unicodedata.normalize("NFC", posixpath.normpath(name))
    if path.startswith(("/", "../")) or path == "..":
        raise InputError(f"{where}: {name[:200]} leads out of the data folder")
    if path.count("/") < level:
        raise InputError(f"{where}: {name[:200]} has no speaker: it must be {'<folder>/' * (level - 1)}<speaker>/...")
    if folder is not None and locate(folder, path) is None:
        raise InputError(f"{where}: {name[:200]}: no such file in {folder}")
    return path
