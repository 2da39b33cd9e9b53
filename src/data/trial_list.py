"""Trial lists: VoxCeleb's `1 speaker/a.wav speaker/b.wav` or Kaldi's `speaker-a speaker-b target`."""

import os
import posixpath
import unicodedata
from collections.abc import Collection
from pathlib import Path

import soundfile

from src.common.files import looked_for
from src.data.tables import read_text
from src.runtime.errors import InputError

Trial = tuple[int, str, str]  # target 1 or 0, enrolment, test

# VoxCeleb1's test lists O, E and H, as published and cleaned: https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html
OFFICIAL = {
    "veri_test.txt": 37_720,
    "veri_test2.txt": 37_611,
    "list_test_all.txt": 581_480,
    "list_test_all2.txt": 579_818,
    "list_test_hard.txt": 552_536,
    "list_test_hard2.txt": 550_894,
}
_FIRST, _LAST = {"1": 1, "0": 0}, {"target": 1, "nontarget": 0}
_FORMS = "`0 or 1, a file, a file` or `a file, a file, target or nontarget`"
_ENDINGS = {f".{name.lower()}" for name in soundfile.available_formats()} | {
    ".m4a",
    ".mp4",
    ".aac",
    ".opus",
    ".webm",
    ".wma",
    ".amr",
}


def read_trial_list(path: str | Path, recordings: Collection[str] = (), level: int = 1) -> list[Trial]:
    """(target 1 or 0, enrolment, test) of every trial, in file order; blank lines are passed over.

    recordings: names that there are, as `utt_id` in the manifest; the folder of the speaker is that at `level`. A name of
    the list leads to the recording of this name, else to the one that it names without its ending or with another, from
    the folder of the speaker on, or with hyphens in the place of slashes (`id10270-x6uYqmx31kE-00001`). One that leads
    to none stays, as a normalised posix path in Unicode's form NFC.

    Raises InputError, with the line, for a malformed line, a name that leads out of the folder or to more than one
    recording; also when target or non-target trials are missing, or when a file named as one of the OFFICIAL lists has
    another number of trials: part of one goes by another name.
    """
    trials, paths, lines = [], {}, {}
    for number, line in enumerate(read_text(path, looked_for(path).removeprefix("; ")).split("\n"), start=1):
        if not (parts := line.split()):
            continue
        if len(parts) != 3:  # names with spaces in them
            parts = [part.strip() for part in line.split("\t")]
        target, pair = _parsed(parts, path, number)
        for name in pair:
            if name not in paths:
                paths[name] = _normalised(name, path, number)
                lines.setdefault(paths[name], number)
        trials.append((target, *(paths[name] for name in pair)))
    if {target for target, _, _ in trials} != {0, 1}:
        raise InputError(f"{path}: target (1) and non-target (0) trials are both needed")
    expected = OFFICIAL.get(Path(path).name, len(trials))
    if len(trials) != expected:
        raise InputError(
            f"{path}: {len(trials):,} trials; VoxCeleb1's list of this name has {expected:,}: give a part of it another name"
        )
    aliases = _aliases(lines.keys() - set(recordings), recordings, level)
    for name, matches in aliases.items():
        if len(matches) > 1:
            raise InputError(f"{path}: line {lines[name]}: {name[:200]} may be {' or '.join(sorted(matches)[:2])}")
    recording = {name: min(matches) for name, matches in aliases.items()}
    return [(target, recording.get(first, first), recording.get(second, second)) for target, first, second in trials]


def _parsed(parts, path, number):
    readings = []
    if len(parts) == 3:
        readings += [(_FIRST[parts[0]], parts[1:])] if parts[0] in _FIRST else []
        readings += [(_LAST[parts[2]], parts[:2])] if parts[2] in _LAST else []
    if len(readings) != 1:
        fault = "both" if readings else "not"
        raise InputError(f"{path}: line {number}: {fault} {_FORMS}: {' '.join(parts)[:80]!r}")
    return readings[0]


def _normalised(name, path, number):
    normal = unicodedata.normalize("NFC", posixpath.normpath(name))
    if normal.startswith(("/", "../")) or normal == "..":
        raise InputError(f"{path}: line {number}: {name[:200]} leads out of the data folder")
    return normal


def _aliases(names, recordings, level):
    """{name: the recordings that it may mean}, of those that mean any: as it stands, before without its ending."""
    stems = {name: _stem(name) for name in names}
    sought, matches = names | set(stems.values()), {}
    for recording in recordings if names else ():
        forms = {recording, _stem(recording)}
        forms |= {form.split("/", level - 1)[-1] for form in forms}
        for form in forms | {form.replace("/", "-") for form in forms}:
            if form in sought:
                matches.setdefault(form, set()).add(recording)
    meant = {name: matches.get(name) or matches.get(stem) for name, stem in stems.items()}
    return {name: several for name, several in meant.items() if several}


def _stem(name):
    root, ending = posixpath.splitext(name)
    return root if ending.lower() in _ENDINGS else name


def locate(folder: str | Path, name: str) -> str | None:
    """The path of the file of that name in a folder, whichever of Unicode's normal forms the file system keeps."""
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((path for form in forms if os.path.isfile(path := os.path.join(folder, form))), None)


def left_out(trials: list[Trial], recordings: Collection[str], path: str | Path, most: float) -> int:
    """How many trials have a recording that is not among those that there are.

    Raises InputError where that is a larger share than `most`, evaluate.max_missing_trials.
    """
    known = set(recordings)
    missing = [pair for _, *pair in trials if not known.issuperset(pair)]
    if len(missing) > most * len(trials):
        first = next(name for name in missing[0] if name not in known)
        raise InputError(
            f"{path}: {len(missing):,} of {len(trials):,} trials have recordings that are missing or cannot be used, such as "
            f"{first[:200]}; evaluate.max_missing_trials allows {100 * most:g} %"
        )
    return len(missing)
