"""Which trial of a search is taken: pure functions over its rows."""

from collections.abc import Sequence

import numpy as np

Row = dict[str, float]  # of metrics/trials.csv
OBJECTIVES = ("objective", "gmacs", "size_mb")  # columns of a row, each the lower the better
# What is to be small: the columns to compare, one after the other. Where it is time, a share is that of the time.
ORDER = {
    "gmacs": ("gmacs", "size_mb", "objective"),
    "size": ("size_mb", "gmacs", "objective"),
    "time": ("share", "gmacs", "objective"),
}


def pareto_optimal(rows: Sequence[Row]) -> list[bool]:
    """For each row, whether no other is at least as good in all OBJECTIVES and better in one."""
    values = np.array([[row[name] for name in OBJECTIVES] for row in rows])
    return [not ((values <= value).all(1) & (values < value).any(1)).any() for value in values]


def select(rows: Sequence[Row], objective: str = "gmacs") -> Row | None:
    """The cheapest of the rows that are marked `noninferior`, None where none is, by what is to be small: a key of
    ORDER."""
    eligible = [row for row in rows if row["noninferior"]]
    return min(eligible, key=lambda row: tuple(row[name] for name in ORDER[objective]), default=None)
