"""Embed a folder: python -m src.embed FOLDER --out embeddings.npz

Writes `paths` [n] and `embeddings` float32 [n, dim] (as the model gives them, not length-normalised) of every audio
file in FOLDER, and `skipped` [m, 2], path and reason of what could not be used. A run that was interrupted goes on where
it stopped when it is given again; files that have changed since are done anew. Needs onnxruntime, numpy, soundfile,
pydantic and tqdm; soxr too for audio that is not at 16 kHz.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.embed")

import base64
import contextlib
import fcntl
import json
import os
import sys
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydantic import Field
from tqdm import tqdm

from src.common.files import atomic_write, sha256
from src.common.options import DIFFER, ModelOptions
from src.runtime import engine
from src.runtime.audio import MAX_SECONDS, waveform
from src.runtime.errors import AudioError, InputError, printable, reason
from src.sources.folder import audio_files, passed_over, relative_name

QUEUED = 256  # files handed to the threads at once
ARRAYS = ("paths", "embeddings", "skipped")
_MADE_BY = {"made_by": "src.embed"}


class Options(ModelOptions):
    folder: Path = Field(description="the folder of recordings")
    out: Path = Field(Path("embeddings.npz"), description="the file to write; one that embed wrote is replaced")
    workers: int = Field(min(os.cpu_count() or 1, 256), ge=1, le=256, description="threads")


def main(**options):
    try:
        embed(**options)
    except KeyboardInterrupt:
        print("the same command goes on from here", file=sys.stderr)
        raise


def embed(
    folder: Path | str,
    out: Path | str,
    model: Path | str,
    workers: int = 1,
    max_seconds: float | None = MAX_SECONDS,
    channel: int | None = None,
) -> None:
    """Embed a folder's audio files into `out`; see the module.

    max_seconds: None cuts nothing; channel: from 1, None for the average. What is done is kept in <out>.partial until
    `out` is there. Raises InputError when `out` or <out>.partial is there and not from embed, the folder has no audio
    file or none that can be used, the model cannot be, or another run writes the same `out`.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    _refuse_other(out)
    session = engine.session(model)
    skipped, files = _files(folder)
    if not files:
        raise InputError(f"{folder}: no audio file that can be read in it")
    settings = {"model": sha256(model), "max_seconds": max_seconds, "channel": channel}
    partial = out.with_name(f"{out.name}.partial")
    with _store(partial, settings, files) as (done, keep):
        if done:
            print(f"{len(done)} of {len(files)} were done before", file=sys.stderr)
        todo = {name: path for name, (path, _) in files.items() if name not in done}
        made = contextlib.closing(_embeddings(session, todo, workers, max_seconds, channel))
        with made as results, tqdm(total=len(files), initial=len(done), unit="file", disable=None) as bar:
            for name, result in results:
                if isinstance(result, str):
                    skipped[name] = result
                else:
                    keep(name, *result)
                bar.update()
        if not done:
            partial.unlink(missing_ok=True)
            name, why = min(skipped.items())
            raise InputError(f"{folder}: none of {len(skipped)} files can be used; {name}: {why}")
        names = sorted(done)
        embeddings, unused = np.stack([done[name][0] for name in names]), np.array(sorted(skipped.items()), dtype=str)
        _refuse_other(out)  # the run may have taken hours
        with atomic_write(out) as new, open(new, "wb") as file:
            np.savez(file, paths=np.array(names), embeddings=embeddings, skipped=unused.reshape(-1, 2))
        partial.unlink(missing_ok=True)
    differ = [name for name in names if done[name][1]]
    if differ:
        print(f"note: {len(differ)} files, such as {printable(differ[0])}: {DIFFER}", file=sys.stderr)
    for name, why in sorted(skipped.items()):
        print(f"skipped: {printable(name)}: {printable(why)}", file=sys.stderr)
    print(f"{printable(out)}: {len(names)} embeddings; {len(skipped)} skipped")


def _files(folder):
    """({name: reason} of the audio files that cannot be read, {name: (path, state)} of the others)."""
    skipped, files = {}, {}
    passed = Counter()
    for path, fault in audio_files(folder, passed):
        name = relative_name(path, folder)
        try:
            state = os.stat(path)
            files[name] = path, f"{state.st_size} {state.st_mtime_ns}"
        except OSError as error:
            fault = fault or f"unreadable: {reason(error)}"
        if fault:
            skipped[name] = fault
            files.pop(name, None)
    if passed:
        print(passed_over(passed), file=sys.stderr)
    return skipped, files


def _refuse_other(out):
    """Raise InputError where `out` is there, and not a file that embed wrote."""
    ours = not os.path.lexists(out)
    if out.is_file() and not out.is_symlink():
        with (
            contextlib.suppress(Exception),
            zipfile.ZipFile(out) as archive,
        ):  # zipfile has many for a file that is none
            ours = {*archive.namelist()} == {f"{name}.npy" for name in ARRAYS}
    if not ours:
        raise InputError(f"{out}: is there, and is not a file that embed wrote; nothing else is replaced")


@contextlib.contextmanager
def _store(path, settings, files):
    """({name: (embedding, whether channels differ)} finished, a function that adds one), kept in a file.

    The file's first line has the settings, each other one a finished file. What is there is taken over where the settings
    are the same and the file, of {name: (path, state)}, is as it was. It is this process's alone.
    """
    first = json.dumps(_MADE_BY | settings).encode() + b"\n"
    done = {}

    def keep(name, embedding, differ):
        done[name] = embedding, differ
        data = base64.b64encode(embedding.astype("<f4").tobytes()).decode()
        try:
            file.write(json.dumps([name, files[name][1], differ, data]).encode() + b"\n")
            file.flush()  # a process that is killed loses nothing
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {reason(error)}") from None

    with _opened(path, first) as file:
        if file.readline() != first:  # other settings
            file.seek(0)
            file.truncate()
            file.write(first)
        end = file.tell()
        for line in file:
            try:
                name, state, differ, data = json.loads(line)
                embedding = np.frombuffer(base64.b64decode(data, validate=True), "<f4")
            except (ValueError, TypeError):  # a full disk took part of it
                break
            end += len(line)
            if files.get(name, ("", ""))[1] == state:
                done[name] = embedding, differ
        file.seek(end)
        file.truncate()
        yield done, keep


@contextlib.contextmanager
def _opened(path, first):
    """The file of a store, locked; a new one begins with `first`. Raises InputError where it is another's."""
    mark = json.dumps(_MADE_BY).encode().removesuffix(b"}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "xb") as new:
                new.write(first)
        except FileExistsError:
            pass
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        file = open(path, "r+b") if path.is_file() and not path.is_symlink() else None  # noqa: SIM115 (closed below)
        if file is None or file.read(len(mark)) != mark:
            raise InputError(f"{path}: is there, and was not made by embed; move it away, or choose another --out")
        file.seek(0)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {reason(error)}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another run is writing it") from None
        except OSError:
            pass  # some network file systems lock no files
        yield file


def _embeddings(session, todo, workers, max_seconds, channel):
    """(name, (embedding float32 [dim], whether channels differ), or the reason why there is none), in order."""

    def one(path):
        try:
            samples, differ = waveform(path, max_seconds, channel)
            return engine.embedding(session, samples), differ
        except AudioError as error:
            return str(error)

    names, pool = list(todo), ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(names), QUEUED):
            part = names[start : start + QUEUED]
            yield from zip(part, pool.map(one, map(todo.get, part)), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
