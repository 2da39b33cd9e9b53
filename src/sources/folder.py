"""Speech in a folder: <path>/<speaker>/**/<recording>, VoxCeleb's own layout."""

import codecs
import functools
import mimetypes
import os
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import soundfile

from src.common.files import looked_for
from src.data.trial_list import locate
from src.runtime.audio import decode_path, undecodable
from src.runtime.errors import InputError
from src.sources.candidate import Candidate
from src.sources.speaker_metadata import read_tables

HIDDEN, NO_AUDIO = "hidden", "no audio"
_DECODED = frozenset(f".{name.lower()}" for name in soundfile.available_formats())
_TYPES = mimetypes.MimeTypes()  # those of Python, which are the same on every machine
_VOXCELEB = re.compile(r"id\d{5}")


@dataclass(frozen=True)
class Listing:
    """The recordings of a folder, what cannot be used of it (utt_id, speaker, reason), and what is to be said."""

    candidates: list[Candidate]
    skipped: list[tuple[str, str, str]]
    notes: list[str]


def listing(path: str | Path, seconds: float, level: int = 1) -> Listing:
    """Every recording, by speaker and name; at most about `seconds` of each will be decoded.

    A speaker is a folder `level` levels below `path`; where two have one name, their names are those of the folders
    from `path` on. Raises InputError when the folder is missing or holds no recording, and as `read_tables`.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"data.path: {path}: no such folder{looked_for(path)}")
    passed, found, skipped = Counter(), {}, []
    for file, fault in audio_files(root, passed):
        name = unicodedata.normalize("NFC", relative_name(file, root))
        *folders, _ = name.split("/")
        speaker = "/".join(folders[:level])
        if not fault and len(folders) < level:
            fault = f"no speaker: not in a folder {_below(level)} data.path"
        if not fault and name in found:
            fault = "name: another file has the same one in Unicode's form NFC"
        if fault:
            skipped.append((name, speaker, fault))
        else:
            found[name] = speaker, file
    if not found:
        reasons = Counter(reason for *_, reason in skipped).most_common(3)
        why = "".join(f"; {count} {reason}" for reason, count in reasons)
        raise InputError(f"data.path: {path}: no recording in a folder {_below(level)} it{why}")
    names = _short({speaker for speaker, _ in found.values()})
    tables = read_tables(path)
    sexes = {name: sex for table in tables for name, sex in table.sexes.items()}
    candidates = [
        Candidate(name, names[speaker], partial(decode_path, file, seconds), sex=sexes.get(names[speaker], ""))
        for name, (speaker, file) in found.items()
    ]
    speakers = set(names.values())
    notes = [f"data.path: {len(speakers)} speakers, the folders {_below(level)} it, with {len(found)} recordings"]
    notes += [passed_over(passed)] if passed else []
    notes += [table.usage(speakers) for table in tables]
    if tables:
        notes.append(
            f"the sex of {sum(bool(sexes.get(name)) for name in speakers)} of {len(speakers)} speakers is known"
        )
    notes += _hint(found, level)
    return Listing(candidates, [(name, names.get(speaker, speaker), why) for name, speaker, why in skipped], notes)


def named(path: str | Path, names: list[str], listed: list[Candidate], level: int = 1) -> list[Candidate]:
    """Candidates for files named relative to the folder, to be decoded in full; their speakers are those `listed`."""
    speakers = {_folder(candidate.utt_id, level): candidate for candidate in listed}
    candidates = []
    for name in names:
        folder = _folder(name, level)
        like = speakers.get(folder)
        speaker, sex = (like.speaker, like.sex) if like else (folder, "")
        candidates.append(
            Candidate(name, speaker, partial(decode_path, locate(path, name) or Path(path, name)), sex=sex)
        )
    return candidates


def audio_files(path: str | Path, passed: Counter | None = None) -> Iterator[tuple[str, str | None]]:
    """(path, None) of every file under a folder that may be a recording, by name; (path, reason) of what cannot be.

    A file is opened, to see whether libsndfile knows it, unless its ending or type answers that. What is plainly no
    audio, and names that begin with a dot, are counted in `passed`, under NO_AUDIO and HIDDEN. Raises InputError when
    the folder cannot be read.
    """
    root = os.fspath(path)
    try:
        os.scandir(root).close()
    except OSError as error:
        raise InputError(f"{root}: cannot be read: {error.strerror}") from None
    return _walk(root, set(), Counter() if passed is None else passed)


def passed_over(passed: Counter) -> str:
    """What `audio_files` counted, in one line."""
    kinds = ((HIDDEN, "names that begin with a dot"), (NO_AUDIO, "files that are no audio"))
    return "passed over: " + ", ".join(f"{passed[kind]} {text}" for kind, text in kinds if passed[kind])


def relative_name(path: str | Path, root: str | Path) -> str:
    """The path within the folder. What is not UTF-8 in it is escaped: a name is printed and written to files."""
    return os.fsencode(os.fspath(path)[len(os.path.join(root, "")) :]).decode("utf-8", "backslashreplace")


def _entries(folder):
    """In order of name, real ones before links: a folder reached twice keeps its own name."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))


def _is_folder(entry):
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _walk(folder, visited, passed):
    real = os.path.realpath(folder)
    if real in visited:
        yield folder, "link to a folder already read"
        return
    visited.add(real)
    try:
        entries = _entries(folder)
    except OSError as error:
        yield folder, f"unreadable: {error.strerror}"
        return
    for entry in entries:
        if entry.name.startswith("."):
            passed[HIDDEN] += 1
        elif _is_folder(entry):
            yield from _walk(entry.path, visited, passed)
        elif (fault := _fault(entry)) == NO_AUDIO:
            passed[NO_AUDIO] += 1
        else:
            yield entry.path, fault


def _fault(entry):
    """None of a file to be read; NO_AUDIO, or the reason why it cannot be."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in _DECODED or not entry.is_file():
        return None  # reading it tells
    kind = _type(suffix)
    media, other = kind and kind.startswith(("audio/", "video/")), kind not in (None, "application/octet-stream")
    if other and not media:
        return NO_AUDIO
    try:
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
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # which may end within a character
    except UnicodeDecodeError:
        return False
    return b"\0" not in start


def _below(level):
    return "directly below" if level == 1 else f"{level} levels below"


def _folder(name, level):
    return "/".join(name.split("/")[:level])


def _short(folders):
    """{folder: its last name, or all of them where two folders have the same last one}."""
    last = Counter(PurePosixPath(folder).name for folder in folders)
    return {folder: name if last[name := PurePosixPath(folder).name] == 1 else folder for folder in sorted(folders)}


def _hint(found, level):
    """Whether the speakers seem to be a level below: they hold as many folders as those hold recordings."""
    inside = Counter(
        (speaker, _folder(name, level + 1)) for name, (speaker, _) in found.items() if name.count("/") > level
    )
    if not inside:
        return []
    folders = Counter(speaker for speaker, _ in inside)
    direct = {speaker for name, (speaker, _) in found.items() if name.count("/") == level}
    fan = statistics.median(folders.values())
    many = 1 < fan >= min(len(folders), statistics.median(inside.values()))
    if all(map(_VOXCELEB.fullmatch, folders)) or not (many or len(direct) > len(folders)):
        return []
    holding = f"{len(folders)} of {len(folders.keys() | direct)} speakers hold folders ({fan:g} each)"
    return [f"data.path: {holding} of recordings; if those are the speakers, set data.level: {level + 1}"]
