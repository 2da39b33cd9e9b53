"""Text of people's files, atomic writes, which replace only what the project writes, and checksums."""

import codecs
import contextlib
import csv
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from src.runtime.errors import InputError, reason

_MARK = "made-by-this-project"  # an empty file in each temporary folder: only one with it is ever cleared


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, gone at the end. Those that killed runs have left there go first.

    One is taken for left behind when it has the name, the mark and nobody's lock.
    """
    for old in parent.glob(".????????.partial"):
        with contextlib.suppress(OSError):
            if (old / _MARK).is_file() and not old.is_symlink():
                with _locked(old):
                    shutil.rmtree(old)
    folder = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=parent))
    try:
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # some network file systems lock no folders; there, none is cleared
                held.enter_context(_locked(folder))
            (folder / _MARK).touch()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder):
    """Raises BlockingIOError where another process has the lock; a killed process loses it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A path at which a file or a folder is to be made; at the end of the block it takes the place of `path`. The
    folder that holds `path` is made.

    Where the block fails nothing is left of it, and `path` is as it was. A file replaces only a file, or a link to one,
    whose target stays; a folder only a folder without anything that the new one lacks. Raises InputError, which names
    `path`, where something else is there, or it cannot be written: a full disk, no permission.
    """
    path = Path(path)
    try:
        _refuse_special(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path.parent) as folder:
            new, old = folder / "new", folder / "old"
            yield new
            try:
                if path.is_dir():
                    _refuse_folder(path, new)
                    os.replace(path, old)  # a folder is not replaced by renaming
                os.replace(new, path)
            except BaseException:
                if old.exists():
                    os.replace(old, path)
                raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {reason(error)}") from None


def _refuse_special(path):
    """Whether it is for a file or a folder, a device, a socket or a link to a folder is never replaced."""
    if path.is_symlink() and path.is_dir():
        raise InputError(f"{path}: cannot be written: it is a link to a folder")
    if os.path.lexists(path) and not (path.is_symlink() or path.is_file() or path.is_dir()):
        raise InputError(f"{path}: cannot be written: it is neither a file nor a folder")


def _refuse_folder(path, new):
    if not new.is_dir():
        raise InputError(f"{path}: cannot be written: it is a folder")
    made, there = ({entry.relative_to(folder) for entry in folder.rglob("*")} for folder in (new, path))
    if there - made:
        raise InputError(f"{path}: cannot be replaced: {min(there - made)} in it is not of this program; move it away")


def looked_for(path: str | Path) -> str:
    """What a message adds about a path of the parameters that is not there: the place that a relative one means, and
    the remedy where that is in one of DVC's copies of the repository."""
    if os.path.isabs(path):
        return ""
    copied = (
        "; under `dvc exp run --temp` or `--queue` a relative path is taken from the root of a copy of the repository, "
        "in .dvc/tmp/exps: give an absolute path"
    )
    return f"; looked for at {os.path.abspath(path)}{copied if '.dvc/tmp' in Path.cwd().as_posix() else ''}"


def read_text(path: str | Path, remedy: str = "") -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark; without the mark.

    Raises InputError, in a line that ends with `remedy`, where there is no such file or it is not such text.
    """
    try:
        data = Path(path).read_bytes()
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{remedy and f'; {remedy}'}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line}: not in UTF-8; save the file as UTF-8") from None


def write_text(path: str | os.PathLike, text: str) -> None:
    with atomic_write(path) as new:
        new.write_text(text, encoding="utf-8", newline="")


def sha256(path: str | os.PathLike) -> str:
    """The checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | os.PathLike, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Sequence | dict]) -> None:
    """Rows are sequences in the order of `columns`, or mappings."""
    with atomic_write(path) as new, open(new, "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([row[c] for c in columns] if isinstance(row, dict) else row for row in rows)
