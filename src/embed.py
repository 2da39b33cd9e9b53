"""Embed a folder: python -m src.embed FOLDER --out embeddings.npz

Writes `paths` [n] and `embeddings` float32 [n, dim] (as the model gives them, not length-normalised) of every
recording in FOLDER (in any format that libsndfile reads), and `skipped` [m, 2], path and reason of what could not be used. A run that was
interrupted goes on where it stopped when it is given again; files that have changed since are done anew. Needs
onnxruntime, numpy and soundfile; soxr too for audio that is not at 16 kHz.
"""

import argparse
import contextlib
import os
import sqlite3
import sys
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from src.common.command import reported
from src.common.files import atomic_write, sha256
from src.runtime import engine
from src.runtime.audio import MAX_SECONDS, waveform
from src.runtime.errors import AudioError, InputError
from src.sources.folder import audio_files, passed_over, relative_name

MODEL = "models/qat.onnx"
QUEUED = 256  # files handed to the threads at once
SAVED = 1.0  # seconds of work that may be lost


def main():
    options = parser().parse_args()
    try:
        embed(options.folder, options.out, options.model, options.workers, options.max_seconds)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def parser():
    made = argparse.ArgumentParser(prog="python -m src.embed", description=__doc__.partition("\n\n")[2])
    made.add_argument("folder")
    made.add_argument("--out", default="embeddings.npz", help="the file to write (default: %(default)s)")
    made.add_argument("--model", default=MODEL, help="an ONNX file (default: %(default)s)")
    made.add_argument("--workers", type=int, default=os.cpu_count(), help="threads (default: one for each CPU)")
    made.add_argument(
        "--max-seconds", type=float, default=MAX_SECONDS, help="what is longer is cut to this (default: %(default)g)"
    )
    return made


def embed(folder, out, model, workers=1, max_seconds=MAX_SECONDS):
    """Embed a folder's audio files into `out`; see the module.

    Memory is that of the files' names and of what the threads work on. What is done is kept in <out>.partial, an
    SQLite file, until `out` is there. Raises InputError when the folder has no audio file or none that can be used,
    the model cannot be, or another run writes the same `out`.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    session = engine.session(model)
    skipped, files = {}, {}
    passed = Counter()
    for path, fault in audio_files(folder, passed):
        name = relative_name(path, folder)
        try:
            stat = os.stat(path)
        except OSError as error:
            fault = fault or f"unreadable: {error.strerror}"
        if fault:
            skipped[name] = fault
        else:
            files[name] = path, f"{stat.st_size} {stat.st_mtime_ns}"
    if passed:
        print(passed_over(passed), file=sys.stderr)
    if not files:
        raise InputError(f"{folder}: no recording that can be read in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    with _kept(partial, f"{sha256(model)} {max_seconds}", files) as kept:
        done = {name for (name,) in kept.execute("SELECT name FROM done")}
        todo = {name: path for name, (path, _) in files.items() if name not in done}
        if done:
            print(f"{len(done)} of {len(files)} were done before", file=sys.stderr)
        made = contextlib.closing(_embeddings(session, todo, workers, max_seconds))
        with made as pairs, _progress(len(files), len(done)) as show:
            for name, found in pairs:
                if isinstance(found, str):
                    skipped[name] = found
                else:
                    kept.execute("INSERT INTO done VALUES (?, ?, ?)", (name, files[name][1], found.tobytes()))
                if show():
                    kept.commit()
        kept.commit()
        names = sorted(files.keys() - skipped.keys())
        if not names:
            name, reason = min(skipped.items())
            raise InputError(f"{folder}: none of {len(skipped)} files can be used; {name}: {reason}")
        _write(out, names, kept, session.get_outputs()[0].shape[1], sorted(skipped.items()))
    partial.unlink()
    for name, reason in sorted(skipped.items()):
        print(f"skipped: {name}: {reason}", file=sys.stderr)
    print(f"{out}: {len(names)} embeddings; {len(skipped)} skipped")


@contextlib.contextmanager
def _kept(path, settings, files):
    """The table `done` (name, state of the file, embedding) of a run with these settings, of files as they are now.

    files: {name: (path, state)}. It is this process's alone, and what is committed to it survives the process.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=1)) as kept:
            kept.execute("PRAGMA locking_mode = EXCLUSIVE")
            kept.execute("PRAGMA synchronous = OFF")  # only a fault of the whole machine could damage it
            kept.execute("BEGIN EXCLUSIVE")
            kept.execute("CREATE TABLE IF NOT EXISTS settings (value TEXT)")
            kept.execute("CREATE TABLE IF NOT EXISTS done (name TEXT PRIMARY KEY, state TEXT, embedding BLOB)")
            if kept.execute("SELECT value FROM settings").fetchall() != [(settings,)]:
                kept.execute("DELETE FROM done")
                kept.execute("DELETE FROM settings")
                kept.execute("INSERT INTO settings VALUES (?)", (settings,))
            found = kept.execute("SELECT name, state FROM done")
            stale = [(name,) for name, state in found if files.get(name, ("", ""))[1] != state]
            kept.executemany("DELETE FROM done WHERE name = ?", stale)
            kept.commit()
            yield kept
    except sqlite3.Error as error:
        busy = getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY"
        raise InputError(f"{path}: {'another run is writing it' if busy else error}") from None


def _embeddings(session, todo, workers, max_seconds):
    """(name, embedding float32 [dim], or the reason why there is none) for {name: path}, in order."""

    def one(path):
        try:
            return engine.embedding(session, waveform(path, max_seconds))
        except AudioError as error:
            return str(error)

    names, pool = list(todo), ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(names), QUEUED):
            part = names[start : start + QUEUED]
            yield from zip(part, pool.map(one, map(todo.get, part)))
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _progress(total, before):
    """A function to call after each file: it tells, about every SAVED seconds, that it is time to save, and shows on
    a terminal how far the run is."""
    begun = told = time.monotonic()
    done, shown = before, sys.stderr.isatty()

    def show():
        nonlocal done, told
        done += 1
        now = time.monotonic()
        if now - told < SAVED:
            return False
        told, rate = now, (done - before) / (now - begun)
        if shown:
            bar = "#" * (30 * done // total)
            print(
                f"\r{bar:<30} {done}/{total} files, {rate:.1f} a second, {(total - done) / rate:.0f} s left  ",
                end="",
                file=sys.stderr,
                flush=True,
            )
        return True

    try:
        yield show
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _write(out, names, kept, dim, skipped):
    """The .npz, an embedding at a time."""
    with atomic_write(out) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, values in (("paths", np.array(names)), ("skipped", np.array(skipped, dtype=str).reshape(-1, 2))):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                npy.write_array(file, values, allow_pickle=False)
        with archive.open(zipfile.ZipInfo("embeddings.npy"), "w", force_zip64=True) as file:
            npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (len(names), dim)})
            for name in names:
                file.write(*kept.execute("SELECT embedding FROM done WHERE name = ?", (name,)).fetchone())


if __name__ == "__main__":
    with reported():
        main()
