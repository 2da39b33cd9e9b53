"""Embed a folder: python -m src.embed FOLDER --out embeddings.npz

Writes `paths` [n] and `embeddings` float32 [n, dim] (as the model gives them, not length-normalised) of every audio
file in FOLDER, and `skipped` [m, 2], path and reason of what could not be used. A run that was interrupted goes on where
it stopped when it is given again; files that have changed since are done anew. Needs onnxruntime, numpy, soundfile,
pydantic and tqdm; soxr too for audio that is not at 16 kHz, and dask[distributed] for --scheduler.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.embed")

import contextlib
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
from pydantic import Field

from src.common.files import atomic_write
from src.common.options import DIFFER, ModelOptions, Scheduler
from src.evaluate import cluster, extract, store
from src.runtime import engine
from src.runtime.audio import MAX_SECONDS
from src.runtime.errors import InputError, printable
from src.sources.folder import named_files

ARRAYS = ("paths", "embeddings", "skipped")


class Options(ModelOptions):
    folder: Path = Field(description="the folder of recordings")
    out: Path = Field(Path("embeddings.npz"), description="the file to write; one that embed wrote is replaced")
    workers: int = Field(min(os.cpu_count() or 1, 256), ge=1, le=256, description="threads")
    scheduler: Scheduler | None = Field(
        None,
        description="address of a Dask scheduler, such as tcp://host:8786, whose workers do the work and read the files; "
        "local: Dask on this machine",
    )


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
    scheduler: str | None = None,
) -> None:
    """Embed a folder's audio files into `out`; see the module.

    max_seconds: that the model hears at once (see `audio.limits`); channel: from 1, None for the average; scheduler: see
    `cluster.connected`. What is done is kept in <out>.partial until `out` is there. Raises InputError when `out` or <out>.partial is there and not
    from embed, the folder has no audio file or none that can be used, the model cannot be, another run writes the same
    `out`, or the scheduler cannot be reached.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    _refuse_other(out)
    engine.session(model)  # what is wrong with it is said before the folder is read
    skipped, files = named_files(folder)
    if not files:
        raise InputError(f"{folder}: no audio file that can be read in it")
    names = sorted(files)
    settings, read, window = extract.reading(model, max_seconds, channel)
    with (
        store.opened(out.with_name(f"{out.name}.partial"), settings) as done,
        cluster.connected(scheduler) if scheduler else contextlib.nullcontext() as client,
    ):
        results = {}
        paths = [files[name] for name in names]
        for number, result in extract.embeddings(model, paths, read, done, workers, client, window):
            if isinstance(result, str):
                skipped[names[number]] = result
            else:
                results[names[number]] = result
        names = sorted(results)
        if not names:
            done.discard()
            name, why = min(skipped.items())
            raise InputError(f"{folder}: none of {len(skipped)} files can be used; {name}: {why}")
        embeddings = np.stack([results[name].values for name in names])
        unused = np.array(sorted(skipped.items()), dtype=str)
        _refuse_other(out)  # the run may have taken hours
        with atomic_write(out) as new, open(new, "wb") as file:
            np.savez(file, paths=np.array(names), embeddings=embeddings, skipped=unused.reshape(-1, 2))
        done.discard()
    differ = [name for name in names if results[name].differ]
    if differ:
        print(f"note: {len(differ)} files, such as {printable(differ[0])}: {DIFFER}", file=sys.stderr)
    for name, why in sorted(skipped.items()):
        print(f"skipped: {printable(name)}: {printable(why)}", file=sys.stderr)
    print(f"{printable(out)}: {len(names)} embeddings; {len(skipped)} skipped")


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
