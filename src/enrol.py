"""Enrol speakers in a gallery: python -m src.enrol GALLERY NAME recording [recording ...]

or python -m src.enrol GALLERY FOLDER, a folder of folders of recordings, <speaker>/**. A recording may also be a folder
of them. A gallery is one file, bound to the model's embeddings; src.identify searches it, src.gallery lists and changes it.

A name that is enrolled already gets the recordings added: a voiceprint is the mean of all its length-normalised
embeddings. A recording that the name has already is passed over, so that the same command goes on where it was interrupted,
a speaker at a time. Exit status: 0 enrolled, 1 where a recording cannot be used or nobody is enrolled, 2 for wrong usage.
Needs onnxruntime, numpy, soundfile, pydantic and tqdm; soxr too for audio that is not at 16 kHz.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.enrol")

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from src.common.files import sha256
from src.common.options import DIFFER, ModelOptions
from src.evaluate.extract import on_threads
from src.runtime import engine, voice
from src.runtime import gallery as galleries
from src.runtime.audio import MAX_SECONDS
from src.runtime.errors import AudioError, InputError, count, printable, reason
from src.runtime.gallery import Gallery, Recording
from src.sources.folder import named_files


class Options(ModelOptions):
    gallery: Path = Field(description="the file; a new one is made")
    who: list[str] = Field(description="the speaker's name, then recordings; or a folder <speaker>/**")
    workers: int = Field(min(os.cpu_count() or 1, 256), ge=1, le=256, description="threads")


def main(**options):
    return 1 if enrol(**options) else 0


def enrol(
    gallery: Path | str,
    who: Sequence[str],
    model: Path | str,
    workers: int = 1,
    max_seconds: float | None = MAX_SECONDS,
    channel: int | None = None,
) -> dict[str, str]:
    """Enrol speakers (see the module). Gives {recording: reason} of those that cannot be used.

    who: a name and recordings, or one folder. Each speaker is enrolled at once, with all recordings that are new. Raises
    InputError when the model or the gallery cannot be used, there is no such folder, or no recording can be used.
    """
    session = engine.session(model)
    speakers, skipped = _speakers(who)
    settings = f"channel {channel or 'average'}, {'whole' if max_seconds is None else f'{max_seconds:g} s'}"
    job = functools.partial(_recording, session, settings, max_seconds, channel)
    about = galleries.Model(sha256(model), str(model))
    done = 0
    with galleries.opened(gallery, about, create=True) as enrolled:
        for name, paths, results in _heard(enrolled, speakers, settings, job, workers):
            new, before = [], 0
            for path, result in zip(paths, results, strict=True):
                if isinstance(result, str):
                    skipped[path] = result
                elif result is None:
                    before += 1
                else:
                    recording, differ = result
                    new.append(recording)
                    if differ:
                        print(f"note: {printable(path)}: {DIFFER}", file=sys.stderr)
                    for other in enrolled.others(recording.checksum, name):
                        print(f"note: {printable(path)}: {printable(other)} is enrolled with it too", file=sys.stderr)
            if new:
                total = enrolled.enrol(name, new)
                added = f"{count(len(new), 'recording')} added, {total.recordings} in all, {total.seconds:.1f} s"
                print(f"{printable(name)}: {added}", flush=True)
            elif before:
                print(f"{printable(name)}: nothing new")
            done += bool(new or before)
    for path, why in sorted(skipped.items()):
        print(f"skipped: {printable(path)}: {printable(why)}", file=sys.stderr)
    if not done:
        raise InputError(f"{' '.join(who)[:200]}: nobody is enrolled: no recording can be used")
    return skipped


def _speakers(who) -> tuple[dict[str, list[str]], dict[str, str]]:
    """({name: paths}, {path: why it cannot be used})."""
    name, *recordings = who
    speakers: dict[str, list[str]] = {}
    skipped: dict[str, str] = {}

    def add(speaker, path):
        paths = speakers.setdefault(galleries.speaker_name(speaker), [])
        if path not in paths:
            paths.append(path)

    if not recordings and not os.path.isdir(name):
        raise InputError(f"{name}: no such folder; a speaker's name is followed by recordings")
    for place in recordings or [name]:
        if not os.path.isdir(place):
            add(name, place)
            continue
        faults, files = named_files(place)
        skipped |= {os.path.join(place, file): fault for file, fault in faults.items()}
        for file, path in files.items():
            if recordings:
                add(name, path)
            elif "/" in file:
                add(file.split("/")[0], path)
            else:
                skipped[path] = "no speaker: not in a folder directly below"
    return speakers, skipped


def _heard(enrolled: Gallery, speakers, settings, job, workers) -> Iterator[tuple[str, list[str], list]]:
    """(name, paths, for each path what `_recording` gives) of each speaker. Recordings of several run side by side."""
    paths = [(name, path) for name, each in speakers.items() for path in each]
    known = {name: enrolled.enrolled(name) for name in speakers}
    results = on_threads(lambda pair: job(pair[1], known[pair[0]]), paths, workers)
    for name, each in speakers.items():
        yield name, each, [next(results) for _ in each]


def _recording(session, settings, max_seconds, channel, path, known) -> tuple[Recording, bool] | str | None:
    """(what is enrolled, whether channels that differ were averaged); None of one in `known`, (checksum, settings); or the
    reason why it cannot be used."""
    try:
        if not os.path.isfile(path):
            voice.heard(session, path)  # which says what it is
        checksum = sha256(path)
        if (checksum, settings) in known:
            return None
        heard = voice.heard(session, path, max_seconds, channel)
    except AudioError as error:
        return str(error)
    except OSError as error:
        return f"unreadable: {reason(error)}"
    shown = os.fsencode(os.path.abspath(path)).decode("utf-8", "backslashreplace")
    return Recording(checksum, settings, shown, heard.seconds, heard.embedding), heard.differ
