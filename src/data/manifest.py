"""data/manifest.csv: one row an utterance that was sampled."""

import csv
from dataclasses import astuple, dataclass, fields

from src.common.files import write_csv
from src.runtime.errors import InputError

PATH = "data/manifest.csv"
SEXES = ("f", "m")
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


def read(path=PATH) -> list[Row]:
    """All rows, in file order. Raises InputError when the file is missing or not a manifest."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            if tuple(next(lines, ())) != COLUMNS:
                raise InputError(f"{path}: line 1: the columns must be {','.join(COLUMNS)}")
            return [_row(values, path, lines.line_num) for values in lines]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage sample_data") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a manifest: {error}") from None


def _row(values, path, line):
    try:
        utt_id, speaker, split, audio, seconds, seen, sex, part = values
        if sex not in ("", *SEXES):
            raise ValueError(sex)
        return Row(utt_id, speaker, split, audio, float(seconds), {"0": 0, "1": 1}[seen], sex, part)
    except (ValueError, KeyError):
        raise InputError(f"{path}: line {line}: not a row of {','.join(COLUMNS)}") from None


def write(rows, path=PATH):
    """Write rows; the file appears whole or not at all."""
    write_csv(path, COLUMNS, map(astuple, rows))


def select(rows, split) -> list[Row]:
    """The rows of one split, in manifest order (by speaker, then utterance)."""
    return [row for row in rows if row.split == split]


def in_both(rows, first, second) -> list[str]:
    """Names of the speakers who are in both splits, sorted."""
    return sorted({row.speaker for row in select(rows, first)} & {row.speaker for row in select(rows, second)})


def needed(rows, split) -> list[Row]:
    """As `select`; raises InputError where the split is empty."""
    chosen = select(rows, split)
    if not chosen:
        raise InputError(f"{PATH}: the split {split} is empty")
    return chosen


def spread(rows, count) -> list[Row]:
    """At most `count` rows at even distances, so that every speaker has a part."""
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]
