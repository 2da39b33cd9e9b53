"""Speech in a folder: <path>/<speaker>/**/<recording>, VoxCeleb's own layout."""

import codecs
import functools
import mimetypes
import os
import re
import statistics
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import soundfile

from src.common.files import looked_for
from src.data.trial_list import left_out, locate, read_trial_list
from src.runtime.audio import decode_path, undecodable
from src.runtime.errors import InputError, count
from src.sources.candidate import Candidate, Offer
from src.sources.speaker_metadata import read_tables

HIDDEN, NO_AUDIO = "names that begin with a dot", "files that are no audio"
_DECODED = frozenset(f".{name.lower()}" for name in soundfile.available_formats())
_TYPES = mimetypes.MimeTypes()  # those of Python, which are the same on every machine
_VOXCELEB = re.compile(r"id\d{5}")


def listing(
    path: str | Path, seconds: float, level: int = 1, trial_list: str | None = None, most_missing: float = 0.0
) -> Offer:
    """Every recording, by speaker and name; at most about `seconds` of each will be decoded. What a trial list names is
    apart, to be decoded in full, and others of its speakers are not offered.

    A speaker is a folder `level` levels below `path`; where two have one name, their names are those of the folders
    from `path` on. most_missing: share of the trials that may name a recording that is not there. Raises InputError when
    the folder is missing or holds no recording, and as `read_tables`, `read_trial_list` and `left_out`.
    """
    files, faults, passed = _recordings(path, level)
    names = _short({_folder(name, level) for name in files})
    speakers, tables = set(names.values()), read_tables(path)
    sexes = {name: sex for table in tables for name, sex in table.sexes.items()}

    def speaker(name):
        folder = _folder(name, level)
        return names.get(folder, folder)

    def candidate(name, file, most):
        return Candidate(name, speaker(name), partial(decode_path, file, most), sex=sexes.get(speaker(name), ""))

    candidates, tested, trials = [candidate(name, file, seconds) for name, file in files.items()], [], []
    total, held = count(len(speakers), "speaker"), count(len(files), "recording")
    notes = [f"data.path: {total}, the folders {_below(level)} it, with {held}"]
    notes += [passed_over(passed)] if passed else []
    notes += [table.usage(speakers) for table in tables]
    if tables:
        notes.append(f"the sex of {sum(bool(sexes.get(name)) for name in speakers)} of {total} is known")
    notes += _hint(files, level)
    if trial_list:
        unusable = {name for name, _ in faults}
        trials = read_trial_list(trial_list, files.keys() | unusable, level)
        listed = {name for _, *pair in trials for name in pair}
        absent = {name for name in listed - files.keys() if name.count("/") < level or not locate(path, name)}
        left_out(trials, listed - absent, trial_list, most_missing)
        faults += [(name, "no such file") for name in sorted(absent - unusable)]
        tested = [candidate(name, files.get(name) or locate(path, name), None) for name in sorted(listed - absent)]
        reserved = {recording.speaker for recording in tested}
        candidates = [recording for recording in candidates if recording.speaker not in reserved]
        named = f"{count(len(listed), 'recording')} of {count(len(reserved), 'speaker')}"
        notes.append(f"{trial_list}: {count(len(trials), 'trial')} of {named}")
    return Offer(candidates, tested, trials, [(name, speaker(name), fault) for name, fault in faults], notes)


def _recordings(path, level):
    """({name: file}, [(name, why it cannot be used)], what is passed over) of a folder."""
    if not os.path.isdir(path):
        raise InputError(f"data.path: {path}: no such folder{looked_for(path)}")
    files, faults, passed = {}, [], Counter()
    for file, fault in audio_files(path, passed):
        name = unicodedata.normalize("NFC", relative_name(file, path))
        if not fault and name.count("/") < level:
            fault = f"no speaker: not in a folder {_below(level)} data.path"
        if not fault and name in files:
            fault = "name: another file has the same one in Unicode's form NFC"
        if fault:
            faults.append((name, fault))
        else:
            files[name] = file
    if not files:
        reasons = Counter(fault for _, fault in faults).most_common(3)
        why = "".join(f"; {number} {fault}" for fault, number in reasons)
        raise InputError(f"data.path: {path}: no recording in a folder {_below(level)} it{why}")
    return files, faults, passed


def audio_files(path: str | Path, passed: Counter | None = None) -> Iterator[tuple[str, str | None]]:
    """(path, None) of every file under a folder that may be a recording, by name; (path, reason) of what cannot be.

    A file is opened, to see whether libsndfile knows it, unless its ending or type answers that. What is plainly no
    audio, and names that begin with a dot, are counted in `passed`, under NO_AUDIO and HIDDEN. Raises InputError when
    the folder cannot be read.
    """
    try:
        os.scandir(path).close()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return _walk(os.fspath(path), set(), Counter() if passed is None else passed)


def named_files(folder: str | Path) -> tuple[dict[str, str], dict[str, str]]:
    """({name within the folder: reason} of its audio files that cannot be read, {name: path} of the others); what is passed
    over is said on standard error. Errors as `audio_files`."""
    skipped, files = {}, {}
    passed = Counter()
    for path, fault in audio_files(folder, passed):
        name = relative_name(path, folder)
        if fault:
            skipped[name] = fault
        else:
            files[name] = path
    if passed:
        print(passed_over(passed), file=sys.stderr)
    return skipped, files


def passed_over(passed: Counter) -> str:
    """What `audio_files` counted, in one line."""
    return "passed over: " + ", ".join(f"{kind} ({number})" for kind, number in sorted(passed.items()))


def relative_name(path: str | Path, root: str | Path) -> str:
    """The path within the folder. What is not UTF-8 in it is escaped: a name is printed and written to files."""
    return os.fsencode(os.fspath(path)[len(os.path.join(root, "")) :]).decode("utf-8", "backslashreplace")


def _walk(folder, visited, passed):
    real = os.path.realpath(folder)
    if real in visited:
        yield folder, "link to a folder already read"
        return
    visited.add(real)
    try:  # real ones before links: a folder reached twice keeps its own name
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        yield folder, f"unreadable: {error.strerror}"
        return
    for entry in entries:
        if entry.name.startswith("."):
            passed[HIDDEN] += 1
        elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _walk(entry.path, visited, passed)
        elif (fault := _fault(entry)) == NO_AUDIO:
            passed[NO_AUDIO] += 1
        else:
            yield entry.path, fault


def _fault(entry):
    """None of a file to be read; NO_AUDIO, or the reason why it cannot be."""
    suffix = os.path.splitext(entry.name)[1].lower()
    try:
        if suffix in _DECODED or not entry.is_file():
            return None  # reading it tells
        kind = _type(suffix) or "application/octet-stream"
        media = kind.startswith(("audio/", "video/"))
        if not media and kind != "application/octet-stream":
            return NO_AUDIO
        with open(entry.path, "rb") as file:
            fault = undecodable(file)
            file.seek(0)
            return NO_AUDIO if fault and not media and _is_text(file.read(1024)) else fault
    except OSError as error:
        return f"unreadable: {error.strerror}"


@functools.cache
def _type(suffix):
    return _TYPES.guess_type(f"file{suffix}")[0]


def _is_text(start):
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" not in start  # as Git tells it


def _below(level):
    return "directly below" if level == 1 else f"{level} levels below"


def _folder(name, level):
    return "/".join(name.split("/")[:-1][:level])


def _short(folders):
    """{folder: its last name, or all of them where two folders have the same last one}."""
    last = Counter(PurePosixPath(folder).name for folder in folders)
    return {folder: name if last[name := PurePosixPath(folder).name] == 1 else folder for folder in sorted(folders)}


def _hint(names, level):
    """Whether the speakers seem to be a level below: they hold as many folders as those hold recordings."""
    inside = Counter(_folder(name, level + 1) for name in names if name.count("/") > level)
    if not inside:
        return []
    folders = Counter(map(os.path.dirname, inside))
    direct = {_folder(name, level) for name in names if name.count("/") == level}
    fan = statistics.median(folders.values())
    many = 1 < fan >= min(len(folders), statistics.median(inside.values()))
    if all(map(_VOXCELEB.fullmatch, folders)) or not (many or len(direct) > len(folders)):
        return []
    holding = f"{len(folders)} of {len(folders.keys() | direct)} speakers hold folders ({fan:g} each)"
    return [f"data.path: {holding} of recordings; if those are the speakers, set data.level: {level + 1}"]
