"""Speech in a folder: <path>/<speaker>/**/*.{wav,flac,ogg,mp3}, VoxCeleb's own layout."""
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from src.errors import InputError
from src.speech.audio import decode_path
from src.speech.candidate import AudioError, Candidate
from src.speech.sexes import read_sexes

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
OTHER_AUDIO = tuple(
    ".aac .aif .aiff .amr .au .caf .m4a .mp4 .opus .pcm .raw .sph .webm .wma".split()
)


def candidates(path, seconds) -> list[Candidate]:
    """Every audio file, by speaker and name; at most about `seconds` of each will be decoded.

    What cannot be reached (no permission, a link back to a folder already read), and audio in a format that is not
    read, is offered too, as a candidate that cannot be read, so that it is reported. Raises InputError when the folder is
    missing or holds no audio file, and as `read_sexes`.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"data.path: {path}: no such folder")
    try:
        speakers = [entry for entry in _entries(root) if _is_folder(entry)]
    except OSError as error:
        raise InputError(f"data.path: {path}: cannot be read: {error.strerror}") from None
    visited = {os.path.realpath(root)}
    found = [found for speaker in speakers for found in _walk(root, speaker.path, seconds, set(visited))]
    if not found:
        raise InputError(f"data.path: {path}: no <speaker>/**/*.{{wav,flac,ogg,mp3}} in it")
    return _with_sexes(found, path)


def named(path, names) -> list[Candidate]:
    """Candidates for files named relative to the folder, to be decoded in full. Errors as `read_sexes`."""
    return _with_sexes(
        [Candidate(name, name.split("/")[0], partial(decode_path, Path(path, name))) for name in names], path)


def _with_sexes(found, path):
    sexes = read_sexes(path)
    return [replace(candidate, sex=sexes.get(candidate.speaker, "")) for candidate in found]


def _entries(folder):
    """In order of name, real ones before links: a folder reached twice keeps its own name."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))


def _is_folder(entry):
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _walk(root, folder, seconds, visited):
    real = os.path.realpath(folder)
    if real in visited:
        yield _candidate(root, folder, partial(_fail, "link to a folder already read"))
        return
    visited.add(real)
    try:
        entries = _entries(folder)
    except OSError as error:
        yield _candidate(root, folder, partial(_fail, f"unreadable: {error.strerror}"))
        return
    for entry in entries:
        if _is_folder(entry):
            yield from _walk(root, entry.path, seconds, visited)
        elif entry.name.lower().endswith(SUFFIXES):
            yield _candidate(root, entry.path, partial(decode_path, entry.path, seconds))
        elif entry.name.lower().endswith(OTHER_AUDIO):
            suffix = os.path.splitext(entry.name)[1].lower()
            yield _candidate(root, entry.path, partial(_fail, f"extension: {suffix}, not {', '.join(SUFFIXES)}"))


def _candidate(root, path, read):
    # A name that is not UTF-8 is kept, escaped: it has to be written to a CSV and printed.
    utt_id = os.fsencode(Path(path).relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
    return Candidate(utt_id, utt_id.split("/")[0], read)


def _fail(reason):
    raise AudioError(reason)
