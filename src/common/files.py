"""Files that appear whole or not at all, and their checksums."""

import contextlib
import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

from src.runtime.errors import InputError, reason


@contextlib.contextmanager
def atomic_write(path):
    """A path beside `path`, for a file or a folder to be written to; at the end of the block it takes the place of
    `path`. The folder that holds it is made.

    Where the block fails nothing is left of it, and `path` is as it was. Raises InputError, which names `path`, where
    it cannot be written: a full disk, no permission.
    """
    path = Path(path)
    beside, before = (path.with_name(f".{path.name}.{state}") for state in ("partial", "before"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(beside)  # of a run that was killed
        yield beside
        if path.is_dir():  # a folder is not replaced by renaming
            _remove(before)
            os.replace(path, before)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {reason(error)}") from None
    finally:
        with contextlib.suppress(OSError):  # of a folder that cannot be written to
            _remove(beside)
            _remove(before)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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


def write_text(path, text):
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def sha256(path):
    """The checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path, content):
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path, columns, rows):
    """Rows are sequences in the order of `columns`, or mappings."""
    with atomic_write(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([row[c] for c in columns] if isinstance(row, dict) else row for row in rows)
