"""Embeddings that are done, in a file, so that an extraction that was interrupted goes on where it stopped."""

import base64
import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.runtime.errors import InputError, reason

_MADE_BY = {"made_by": "src.embed"}


class Embedding(NamedTuple):
    """Of a recording: the checksum of its file, float32 [dim], and whether its channels differ and were averaged."""

    checksum: str
    values: np.ndarray
    differ: bool


class Store:
    """The embeddings in an open file, by the checksum of the recording's file. What is added is in the file at once: a
    process that is killed loses nothing."""

    def __init__(self, path: Path, file, embeddings: dict[str, Embedding]):
        self._path, self._file, self._embeddings = path, file, embeddings

    def __len__(self) -> int:
        return len(self._embeddings)

    def get(self, checksum: str | None) -> Embedding | None:
        return self._embeddings.get(checksum) if checksum else None

    def add(self, embedding: Embedding) -> None:
        """Raises InputError when it cannot be written."""
        self._embeddings[embedding.checksum] = embedding
        try:
            self._file.write(_line(embedding))
            self._file.flush()
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {reason(error)}") from None

    def discard(self) -> None:
        """Remove the file: what the embeddings are for is there."""
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(path: Path, settings: dict[str, Any]) -> Iterator[Store]:
    """The store at `path`, this process's alone; what is there is taken over where it was made with the same settings.

    The file's first line has the settings, each other one an embedding; an incomplete one, as a full disk leaves it, and
    what follows it is dropped. Raises InputError where the file is not a store, another process has it open, or it
    cannot be written.
    """
    first = json.dumps(_MADE_BY | settings).encode() + b"\n"
    with _opened(path, first) as file:
        if file.readline() != first:  # other settings
            file.seek(0)
            file.truncate()
            file.write(first)
        end, embeddings = file.tell(), {}
        for line in file:
            try:
                checksum, differ, data = json.loads(line)
                embedding = Embedding(checksum, np.frombuffer(base64.b64decode(data, validate=True), "<f4"), differ)
                if _line(embedding) != line:
                    break
            except (ValueError, TypeError):
                break
            end += len(line)
            embeddings[checksum] = embedding
        file.seek(end)
        file.truncate()
        yield Store(path, file, embeddings)


def _line(embedding):
    data = base64.b64encode(embedding.values.astype("<f4").tobytes()).decode()
    return json.dumps([embedding.checksum, embedding.differ, data]).encode() + b"\n"


@contextlib.contextmanager
def _opened(path, first):
    """The file of a store, locked; a new one begins with `first`."""
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
            raise InputError(f"{path}: is there, and is not of an interrupted extraction; move it away")
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
