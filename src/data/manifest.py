"""data/manifest.csv: one row an utterance that was sampled."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from src.common.files import write_csv
from src.data.tables import read_csv
from src.runtime.errors import InputError

PATH = "data/manifest.csv"
TRAINING = ("calibration", "finetune")  # splits that fine-tuning hears
ENROL_PART, TEST_PART = "train", "test"  # of SUPERB SI: speakers are enrolled from the one, probed with the other


@dataclass(frozen=True)
class Row:
    utt_id: str
    speaker: str
    split: str
    path: str  # of the audio, relative to the repository's root
    seconds: float
    seen: int  # 1 when the encoder was trained on this speaker
    sex: str = ""  # f or m; empty where it is not known
    part: str = ""  # the data set's own split that the utterance is of; empty where it has none


COLUMNS = tuple(field.name for field in fields(Row))


def read(path: str | Path = PATH) -> list[Row]:
    """All rows, in file order. Raises InputError when the file is missing or not a manifest."""
    return read_csv(path, COLUMNS, _row, remedy="run the stage sample_data")


def _row(fields):
    numbers = {"seconds": float(fields["seconds"]), "seen": int(fields["seen"])}
    return Row(**{name: fields[name] for name in COLUMNS} | numbers)


def write(rows: Iterable[Row], path: str | Path = PATH) -> None:
    """Write rows, atomically."""
    write_csv(path, COLUMNS, map(astuple, rows))


def select(rows: Iterable[Row], split: str) -> list[Row]:
    """The rows of one split, in manifest order (by speaker, then utterance)."""
    return [row for row in rows if row.split == split]


def in_both(rows: Iterable[Row], first: str, *others: str) -> list[str]:
    """Names of the speakers who are in the split `first` and in one of the others, sorted."""
    heard = {row.speaker for split in others for row in select(rows, split)}
    return sorted({row.speaker for row in select(rows, first)} & heard)


def needed(rows: Iterable[Row], split: str) -> list[Row]:
    """As `select`; raises InputError where the split is empty."""
    chosen = select(rows, split)
    if not chosen:
        raise InputError(f"{PATH}: the split {split} is empty")
    return chosen


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows at even distances, so that every speaker has a part."""
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]
