"""Enrolled speakers in one file, an SQLite database that is bound to the model whose embeddings it holds.

What changes it is one transaction: a killed process, a full disk or a second writer leaves either all of it or none. A
speaker's voiceprint is the mean of the length-normalised embeddings of all recordings that were enrolled, length-normalised.
"""

import contextlib
import difflib
import os
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.runtime.errors import InputError, count, one_line
from src.runtime.scoring import mean_direction

_KIND, _VERSION = 0x53504B47, 1  # of the file, in SQLite's application_id and user_version
_TABLES = (
    "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE speakers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, recordings INTEGER NOT NULL,"
    " seconds REAL NOT NULL, voiceprint BLOB NOT NULL)",
    "CREATE TABLE recordings (id INTEGER PRIMARY KEY, speaker INTEGER NOT NULL REFERENCES speakers ON DELETE CASCADE,"
    " checksum TEXT NOT NULL, settings TEXT NOT NULL, path TEXT NOT NULL, seconds REAL NOT NULL,"
    " embedding BLOB NOT NULL, UNIQUE (speaker, checksum))",
    "CREATE INDEX recordings_by_checksum ON recordings (checksum)",
)
_WAIT = 60  # seconds for another writer
_LONGEST = 200  # characters of a name
_BLOCK = 4096  # voiceprints read at once


class Model(NamedTuple):
    """The SHA-256 of a model's file, and what it is called in messages."""

    sha256: str
    name: str


class Recording(NamedTuple):
    """What is enrolled of a recording: the checksum of its file, how it was read (a text), its path, the seconds that were
    used, and its embedding, float32 [dim], not length-normalised."""

    checksum: str
    settings: str
    path: str
    seconds: float
    embedding: np.ndarray


@dataclass(frozen=True)
class Speaker:
    """An enrolled speaker: how many recordings, and how many seconds of them."""

    name: str
    recordings: int
    seconds: float


class Gallery:
    """The gallery in a database that is open; made by `opened`."""

    def __init__(self, path: Path, database: sqlite3.Connection):
        self.path, self._database = path, database

    def __len__(self) -> int:
        return self._database.execute("SELECT count(*) FROM speakers").fetchone()[0]

    def speakers(self) -> Iterator[Speaker]:
        """Everybody who is enrolled, by name."""
        for row in self._database.execute("SELECT name, recordings, seconds FROM speakers ORDER BY name"):
            yield Speaker(*row)

    def usual_recordings(self) -> int:
        """The median of how many recordings a speaker is enrolled with."""
        row = self._database.execute(
            "SELECT recordings FROM speakers ORDER BY recordings LIMIT 1 OFFSET (SELECT count(*) FROM speakers) / 2"
        ).fetchone()
        return row[0] if row else 0

    def enrolled(self, name: str) -> set[tuple[str, str]]:
        """(checksum, settings) of the recordings of a speaker; none of one who is not enrolled."""
        rows = self._database.execute(
            "SELECT checksum, settings FROM recordings JOIN speakers ON speakers.id = speaker WHERE name = ?", (name,)
        )
        return set(rows)

    def others(self, checksum: str, name: str) -> list[str]:
        """Who else is enrolled with this very file."""
        rows = self._database.execute(
            "SELECT name FROM recordings JOIN speakers ON speakers.id = speaker WHERE checksum = ? AND name <> ?",
            (checksum, name),
        )
        return [other for (other,) in rows]

    def enrol(self, name: str, recordings: Sequence[Recording]) -> Speaker:
        """Add recordings to a speaker, who may be new; one that was enrolled before, read in another way, is replaced.

        When it returns, the disk has them. Raises InputError when the embeddings cancel each other out.
        """
        with self._transaction() as database:
            database.execute(
                "INSERT INTO speakers (name, recordings, seconds, voiceprint) VALUES (?, 0, 0, x'')"
                " ON CONFLICT (name) DO NOTHING",
                (name,),
            )
            (speaker,) = database.execute("SELECT id FROM speakers WHERE name = ?", (name,)).fetchone()
            database.executemany(
                "INSERT OR REPLACE INTO recordings (speaker, checksum, settings, path, seconds, embedding)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(speaker, *each[:-1], _blob(each.embedding)) for each in recordings],
            )
            rows = database.execute(
                "SELECT seconds, embedding FROM recordings WHERE speaker = ? ORDER BY checksum", (speaker,)
            ).fetchall()
            with np.errstate(invalid="ignore"):
                voiceprint = mean_direction(np.stack([_vector(blob) for _, blob in rows]))
            if not np.isfinite(voiceprint).all():
                raise InputError(f"{name}: the embeddings of the recordings cancel each other out: no voiceprint")
            enrolled = Speaker(name, len(rows), sum(seconds for seconds, _ in rows))
            database.execute(
                "UPDATE speakers SET recordings = ?, seconds = ?, voiceprint = ? WHERE id = ?",
                (enrolled.recordings, enrolled.seconds, _blob(voiceprint), speaker),
            )
        return enrolled

    def rename(self, old: str, new: str) -> None:
        """Raises InputError when nobody has the old name, or somebody the new one."""
        with self._transaction() as database:
            self._known(old)
            if database.execute("SELECT 1 FROM speakers WHERE name = ?", (new,)).fetchone():
                raise InputError(f"{self.path}: {new}: is enrolled already; two speakers are not made one")
            database.execute("UPDATE speakers SET name = ? WHERE name = ?", (new, old))

    def remove(self, names: Iterable[str]) -> None:
        """Remove speakers and overwrite what was stored of them. Raises InputError, and removes nobody, when one is not
        enrolled."""
        with self._transaction() as database:
            for name in names:
                self._known(name)
                database.execute("DELETE FROM speakers WHERE name = ?", (name,))

    def voiceprints(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(ids, int64 [n], voiceprints, float32 [n, dim]) of all speakers, some thousands at a time."""
        rows = self._database.execute("SELECT id, voiceprint FROM speakers")
        while block := rows.fetchmany(_BLOCK):
            ids, blobs = zip(*block, strict=True)
            yield np.array(ids), np.frombuffer(b"".join(blobs), "<f4").reshape(len(ids), -1)

    def named(self, ids: Sequence[int]) -> tuple[list[str], np.ndarray]:
        """The names and the voiceprints, float32 [n, dim], of those of some speakers who are (still) enrolled."""
        names, blobs = [], []
        for number in ids:
            row = self._database.execute(
                "SELECT name, voiceprint FROM speakers WHERE id = ?", (int(number),)
            ).fetchone()
            if row:
                names.append(row[0])
                blobs.append(row[1])
        return names, np.frombuffer(b"".join(blobs), "<f4").reshape(len(names), -1 if names else 0)

    def _known(self, name):
        if self._database.execute("SELECT 1 FROM speakers WHERE name = ?", (name,)).fetchone():
            return
        near = difflib.get_close_matches(name, [speaker.name for speaker in self.speakers()], 1)
        raise InputError(f"{self.path}: {name}: is not enrolled" + (f"; did you mean {near[0]}?" if near else ""))

    @contextlib.contextmanager
    def _transaction(self):
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # after some faults SQLite has rolled back itself
                self._database.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def opened(path: str | os.PathLike, model: Model | None = None, create: bool = False) -> Iterator[Gallery]:
    """The gallery at `path`, until the end of the block.

    model: whose embeddings are to be used with it. With `create`, a missing file is made. Raises InputError when the file
    is missing, is no gallery, is of another model, or cannot be read or written, here and within the block.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a file; a gallery is one file")
    if not create and not path.exists():
        raise InputError(f"{path}: no such gallery; src.enrol makes one")
    try:
        mode = "rwc" if create else "rw"  # a file that is write-protected is opened for reading
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        with contextlib.closing(sqlite3.connect(uri, _WAIT, isolation_level=None, uri=True)) as database:
            for pragma in ("foreign_keys = ON", "synchronous = EXTRA", "secure_delete = ON"):
                database.execute(f"PRAGMA {pragma}")
            gallery = Gallery(path, database)
            _check(gallery, model, create)
            yield gallery
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB":
            raise InputError(f"{path}: is not a gallery; nothing else is changed") from None
        raise InputError(f"{path}: cannot be read or written: {one_line(error)}") from None


def _check(gallery, model, create):
    database, path = gallery._database, gallery.path
    if create and model and _kind(database) == (0, 0, 0):  # a new file, or one whose maker was killed
        with gallery._transaction():
            if _kind(database) == (0, 0, 0):  # another process may have made it
                for table in _TABLES:
                    database.execute(table)
                database.executemany("INSERT INTO about VALUES (?, ?)", model._asdict().items())
                database.execute(f"PRAGMA application_id = {_KIND}")
                database.execute(f"PRAGMA user_version = {_VERSION}")
    kind, version, tables = _kind(database)
    if (kind, version, tables) == (0, 0, 0):
        raise InputError(f"{path}: nobody is enrolled in it; src.enrol does that")
    if kind != _KIND:
        raise InputError(f"{path}: is not a gallery; nothing else is changed")
    if version != _VERSION:
        raise InputError(f"{path}: is a gallery of version {version}; this program knows version {_VERSION}")
    if model:
        about = Model(**dict(database.execute("SELECT key, value FROM about WHERE key IN ('sha256', 'name')")))
        if about.sha256 != model.sha256:
            raise InputError(
                f"{path}: holds voiceprints by {about.name} (SHA-256 {about.sha256[:12]}…), which do not compare with those "
                f"by {model.name} ({model.sha256[:12]}…): use that model, or enrol in a new gallery"
            )


def _kind(database):
    """What the file is, its version, and how many tables it has."""
    (kind,), (version,) = (database.execute(f"PRAGMA {key}").fetchone() for key in ("application_id", "user_version"))
    return kind, version, database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def speaker_name(text: str) -> str:
    """A speaker's name in Unicode's form NFC. Raises InputError for one that cannot be printed in a line, is empty, or too
    long."""
    name = unicodedata.normalize("NFC", text).strip()
    if not name or not name.isprintable() or len(name) > _LONGEST:
        raise InputError(
            f"{text[:_LONGEST]}: not a speaker's name: {count(_LONGEST, 'printable character')} at most are allowed"
        )
    return name


def _blob(vector):
    return np.asarray(vector).astype("<f4").tobytes()


def _vector(blob):
    return np.frombuffer(blob, "<f4")
