"""Speech in a folder: <path>/<speaker>/**/*.{wav,flac,ogg,mp3}, VoxCeleb's own layout."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from src.common.files import looked_for
from src.runtime.audio import decode_path
from src.runtime.errors import AudioError, InputError
from src.sources.candidate import Candidate
from src.sources.sexes import read_sexes

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
OTHER_AUDIO = tuple(".aac .aif .aiff .amr .au .caf .m4a .mp4 .opus .pcm .raw .sph .webm .wma".split())


def candidates(path, seconds) -> list[Candidate]:
    """Every audio file, by speaker and name; at most about `seconds` of each will be decoded.

    What cannot be reached (no permission, a link back to a folder already read), and audio in a format that is not
    read, is offered too, as a candidate that cannot be read, so that it is reported. Raises InputError when the folder is
    missing or holds no audio file, and as `read_sexes`.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"data.path: {path}: no such folder{looked_for(path)}")
    try:
        speakers = [entry for entry in _entries(root) if _is_folder(entry)]
    except OSError as error:
        raise InputError(f"data.path: {path}: cannot be read: {error.strerror}") from None
    visited = {os.path.realpath(root)}
    found = [
        _candidate(root, file, partial(_fail, fault) if fault else partial(decode_path, file, seconds))
        for speaker in speakers
        for file, fault in _walk(speaker.path, set(visited))
    ]
    if not found:
        raise InputError(f"data.path: {path}: no <speaker>/**/*.{{wav,flac,ogg,mp3}} in it")
    return _with_sexes(found, path)


def audio_files(path):
    """(path, None) of every audio file under a folder, by name; (path, reason) of what cannot be reached."""
    return _walk(os.fspath(path), set())


def named(path, names) -> list[Candidate]:
    """Candidates for files named relative to the folder, to be decoded in full. Errors as `read_sexes`."""
    return _with_sexes(
        [Candidate(name, name.split("/")[0], partial(decode_path, Path(path, name))) for name in names], path
    )


def _with_sexes(found, path):
    sexes = read_sexes(path)
    return [replace(candidate, sex=sexes.get(candidate.speaker, "")) for candidate in found]


def _entries(folder):
    """In order of name, real ones before links: a folder reached twice keeps its own name."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))


def _is_folder(entry):
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _walk(folder, visited):
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
        if _is_folder(entry):
            yield from _walk(entry.path, visited)
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.path, None
        elif entry.name.lower().endswith(OTHER_AUDIO):
            suffix = os.path.splitext(entry.name)[1].lower()
            yield entry.path, f"extension: {suffix}, not {', '.join(SUFFIXES)}"


def relative_name(path, root):
    """The path within the folder. What is not UTF-8 in it is escaped: a name is printed and written to files."""
    return os.fsencode(Path(path).relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _candidate(root, path, read):
    utt_id = relative_name(path, root)
    return Candidate(utt_id, utt_id.split("/")[0], read)


def _fail(reason):
    raise AudioError(reason)
