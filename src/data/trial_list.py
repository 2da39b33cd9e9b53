"""VoxCeleb's trial lists: `1 speaker/a.wav speaker/b.wav`, one trial a line."""

import os
import posixpath
from pathlib import Path

from src.common.files import looked_for
from src.runtime.errors import InputError

# VoxCeleb1's test lists, as published and cleaned: https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html
OFFICIAL = {"veri_test.txt": 37_720, "veri_test2.txt": 37_611}


def read_trial_list(path, folder=None) -> list[tuple[int, str, str]]:
    """(target 1 or 0, enrolment, test) of every trial, in file order; blank lines are passed over.

    The names are normalised posix paths relative to the data folder, as `utt_id` in the manifest. With
    `folder`, each must be a file in it. Raises InputError, with the line, for a malformed line, a name
    that leads out of the folder, a missing file; also when target or non-target trials are missing,
    or when a file named as one of the OFFICIAL lists has another number of trials.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"data.trials: {path}: cannot be read: no such file{looked_for(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"data.trials: {path}: cannot be read: {error}") from None
    trials, known = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) != 3 or parts[0] not in ("0", "1"):
            raise InputError(f"{path}: line {number}: not `0 or 1, a file, a file`: {line.strip()[:80]!r}")
        for name in parts[1:]:
            if name not in known:
                known[name] = _checked(name, folder, f"{path}: line {number}")
        trials.append((int(parts[0]), known[parts[1]], known[parts[2]]))
    if {target for target, _, _ in trials} != {0, 1}:
        raise InputError(f"{path}: target (1) and non-target (0) trials are both needed")
    expected = OFFICIAL.get(Path(path).name, len(trials))
    if len(trials) != expected:
        raise InputError(f"{path}: {len(trials):,} trials; VoxCeleb1's list of this name has {expected:,}")
    return trials


def _checked(name, folder, where):
    path = posixpath.normpath(name)
    if path.startswith(("/", "../")) or path == "..":
        raise InputError(f"{where}: {name[:200]} leads out of the data folder")
    if "/" not in path:
        raise InputError(f"{where}: {name[:200]} has no speaker: it must be <speaker>/...")
    if folder is not None and not os.path.isfile(os.path.join(folder, path)):
        raise InputError(f"{where}: {name[:200]}: no such file in {folder}")
    return path
