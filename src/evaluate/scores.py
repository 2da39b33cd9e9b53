"""Scores of trials, and the files that keep what every figure is computed from.

metrics/scores/<model>.csv: enrol,test,target,score of every verification trial. metrics/evaluation/<model>/ranks.csv:
group,test,speaker,rank of every identification, where rank is that of the right speaker among the enrolments
of the group (all, seen or unseen speakers); top-1 accuracy is the share of rank 1.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
from numpy.typing import ArrayLike

from src.common.files import atomic_write, write_csv
from src.evaluate.trials import Sides, Trials
from src.runtime.errors import InputError, one_line, reason
from src.runtime.scoring import normalised

DECIMALS = 8  # finer than what float32 embeddings determine
SCORES = ("enrol", "test", "target", "score")
RANKS = ("group", "test", "speaker", "rank")
_CHUNK = 1 << 12  # trials scored at once
_LINES = 1 << 16  # lines written at once
_QUOTED = set('",\r\n')  # a field with one of these needs quotes
# Of few distinct values, such as names, arrow keeps numbers.
_NAMES = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())


def cosine(embeddings: ArrayLike, trials: Trials) -> np.ndarray:
    """Cosine of every trial, float64 [n], rounded to the decimals that are written.

    embeddings: as in `vectors`.
    """
    enrolled, tests = vectors(embeddings, trials)
    scores = np.empty(len(trials))
    for start in range(0, len(trials), _CHUNK):
        part = slice(start, start + _CHUNK)
        np.einsum("td,td->t", enrolled[trials.enrol[part]], tests[trials.test[part]], out=scores[part])
    return scores.round(DECIMALS)


def vectors(embeddings: ArrayLike, sides: Sides) -> tuple[np.ndarray, np.ndarray]:
    """Length-normalised vectors, float64, of the enrolments and of the test utterances.

    embeddings: [rows, dim] of the rows that the sides were made from, none of them zero. An enrolment is the
    mean of its utterances' length-normalised embeddings.
    """
    unit = normalised(np.asarray(embeddings, dtype=np.float64))
    return normalised(unit[np.array(sides.enrol_rows)].mean(axis=1)), unit[sides.test_rows]


def write_scores(path: Path | str, trials: Trials, scores: np.ndarray) -> None:
    """Write every trial with its score; reading gives back the very scores that `cosine` gave."""
    enrolled, tests = _fields(trials.enrol_names), _fields(trials.test_names)
    with atomic_write(path) as new, open(new, "w", encoding="utf-8", newline="") as file:
        file.write(",".join(SCORES) + "\n")
        for start in range(0, len(trials), _LINES):
            columns = (
                side[start : start + _LINES].tolist() for side in (trials.enrol, trials.test, trials.targets, scores)
            )
            file.writelines(
                f"{enrolled[enrol]},{tests[test]},{target:d},{score:.{DECIMALS}f}\n"
                for enrol, test, target, score in zip(*columns, strict=True)
            )


def read_scores(path: Path | str, trials: Trials) -> np.ndarray:
    """The trials' scores from such a file: float64 [n].

    Raises InputError when the file is missing or damaged, or holds other trials than these, in this order.
    """
    table = _read(path, SCORES, {"enrol": _NAMES, "test": _NAMES, "target": pyarrow.int8(), "score": pyarrow.float64()})
    sides = ((trials.enrol_names, trials.enrol), (trials.test_names, trials.test))
    same = table.num_rows == len(trials) and np.array_equal(table["target"], trials.targets)
    if not (same and all(_same(table[name], *side) for name, side in zip(SCORES, sides, strict=False))):
        raise InputError(f"{path}: its trials are not those of the present test split; run its stage again")
    return table["score"].to_numpy()


def _same(column, names, numbers):
    """Whether a dictionary column is the names with these numbers, int [n]."""
    number = {name: index for index, name in enumerate(names)}
    start = 0
    for chunk in column.chunks:  # each has a dictionary of its own
        places = np.array([number.get(name, -1) for name in chunk.dictionary.to_pylist()], dtype=np.int64)
        if not np.array_equal(places[chunk.indices.to_numpy()], numbers[start : start + len(chunk)]):
            return False
        start += len(chunk)
    return True


def write_ranks(path: Path | str, ranks: dict[str, list[tuple[str, str, int]]]) -> None:
    """Write {group: [(test utterance, speaker, rank), ...]}."""
    write_csv(path, RANKS, ((group, *line) for group, lines in ranks.items() for line in lines))


def read_ranks(path: Path | str, probes: dict[str, list[tuple[str, str]]]) -> dict[str, list[tuple[str, str, int]]]:
    """Such a file's content for {group: [(test utterance, speaker), ...]}.

    Raises InputError when the file is missing or damaged, or holds other test utterances, or in another
    order.
    """
    table = _read(path, RANKS, {name: pyarrow.string() for name in RANKS[:-1]} | {"rank": pyarrow.int64()})
    keys = [(group, *probe[:2]) for group, part in probes.items() for probe in part]
    if list(zip(*(table[name].to_pylist() for name in RANKS[:-1]), strict=True)) != keys:
        raise InputError(f"{path}: its probes are not those of the present test split; run its stage again")
    places = table["rank"].to_pylist()
    for (_, test, _), place in zip(keys, places, strict=True):
        if place < 1:
            raise InputError(f"{path}: {test}: rank '{place}': a number from 1 is needed")
    following = iter(places)
    return {group: [(*probe[:2], next(following)) for probe in part] for group, part in probes.items()}


def _fields(names: Iterable[str]) -> list[str]:
    """Names as fields of a line of CSV."""
    fields = []
    for name in names:
        if name and not _QUOTED & set(name):
            fields.append(name)
            continue
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([name])
        fields.append(text.getvalue()[:-1])
    return fields


def _read(path, names, types) -> pyarrow.Table:
    """A CSV file that has just these columns, of these types."""
    wrong = []

    def refuse(row):
        wrong.append(f"line {row.number}: {row.actual_columns} values, {row.expected_columns} are needed")
        return "error"

    try:
        with open(path, "rb") as file:
            header = file.readline()
            if header.rstrip(b"\r\n") != ",".join(names).encode():
                raise InputError(f"{path}: line 1: the columns must be {','.join(names)}")
            file.seek(0)
            return pyarrow.csv.read_csv(
                file,
                pyarrow.csv.ReadOptions(use_threads=False),  # otherwise there are no numbers of lines
                pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
                pyarrow.csv.ConvertOptions(column_types=types, null_values=[]),
            )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from None
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: {wrong[0] if wrong else f'not such a CSV file: {one_line(error)}'}") from None
