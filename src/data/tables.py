"""Tables from outside: CSV as programs and spreadsheets write it."""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from src.common.files import read_text
from src.runtime.errors import InputError, count

T = TypeVar("T")


def read_csv(
    path: str | Path,
    columns: Iterable[str],
    parse: Callable[[dict[str, str]], T],
    delimiters: str = ",",
    remedy: str = "",
) -> list[T]:
    """`parse(row)` of every line of a table that has a header, in file order; blank lines are passed over.

    row: {column: text}, the columns without spaces around their names. The delimiter is the first of `delimiters` by which
    the header has all of `columns`; others may stand there too. `parse` raises ValueError with what is wrong in a row.
    Raises InputError, with the line, for that, for a row of another length, and where a column is missing; otherwise as
    `read_text`.
    """
    text = read_text(path, remedy)
    needed, header, rows = list(columns), [], []
    for delimiter in delimiters:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            header = [name.strip() for name in next(lines, ())]
            if not set(needed) <= set(header):
                continue
            for values in lines:
                if not any(values):
                    continue
                if len(values) != len(header):
                    raise ValueError(f"{count(len(values), 'value')}, {len(header)} are needed")
                rows.append(parse(dict(zip(header, values, strict=True))))
            return rows
        except (ValueError, csv.Error) as error:
            raise InputError(f"{path}: line {lines.line_num}: {error}") from None
    raise InputError(f"{path}: line 1: the columns {','.join(needed)} are needed, not {text[:200].splitlines()[:1]}")
