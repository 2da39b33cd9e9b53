"""Scores of trials, and the files they are kept in.

metrics/scores/<model>.csv has enrol,test,target,score of every verification trial. metrics/ranks/<model>.csv has
group,test,speaker,rank of every identification: the rank of the right speaker among a group's enrolments.
"""
import csv

import numpy as np

from src.errors import InputError
from src.speech.manifest import write_csv

DECIMALS = 8
SCORES = ("enrol", "test", "target", "score")
RANKS = ("group", "test", "speaker", "rank")


def cosine(embeddings, trials):
    """Cosine of every trial, float64 [n], rounded to what `write_scores` writes.

    embeddings: [rows, dim], of the rows that the trials were made from, none of them zero. An enrolment of
    several utterances is the mean of their length-normalised embeddings.
    """
    unit = _normalised(np.asarray(embeddings, dtype=np.float64))
    enrolled = _normalised(np.stack([unit[list(rows)].mean(axis=0) for rows in trials.enrol_rows]))
    tests = unit[trials.test_rows]
    scores = np.empty(len(trials))
    for start in range(0, len(trials), _CHUNK):
        part = slice(start, start + _CHUNK)
        np.einsum("td,td->t", enrolled[trials.enrol[part]], tests[trials.test[part]], out=scores[part])
    return scores.round(DECIMALS)


_CHUNK = 1 << 16  # trials, to bound the memory


def _normalised(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def write_scores(path, trials, scores):
    """Write the trials and their scores; the file appears whole or not at all."""
    enrol = (trials.enrol_names[index] for index in trials.enrol)
    test = (trials.test_names[index] for index in trials.test)
    target = trials.targets.astype(int)
    write_csv(path, SCORES, zip(enrol, test, target.tolist(), (f"{score:.{DECIMALS}f}" for score in scores)))


def read_scores(path, trials):
    """Scores of the trials from the file that `write_scores` wrote: float64 [n], in the trials' order.

    Raises InputError when the file is missing or damaged, or holds other trials.
    """
    enrol, test, target, score = _read(path, SCORES)
    if (
        enrol != [trials.enrol_names[index] for index in trials.enrol]
        or test != [trials.test_names[index] for index in trials.test]
        or target != [str(int(target)) for target in trials.targets]
    ):
        raise InputError(f"{path}: its trials are not those of the present test split; make it again")
    return _numbers(path, score, float)


def write_ranks(path, names, speakers, ranks):
    """Write ranks: {group: (probes, ranks)}; `names` and `speakers` are those of every probe."""
    write_csv(path, RANKS, (
        (group, names[probe], speakers[probe], rank)
        for group, (probes, own) in ranks.items() for probe, rank in zip(probes, own)
    ))


def _read(path, columns):
    """The columns of a CSV file with just these columns: lists of str."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file: {error}") from None
    if not lines or tuple(lines[0]) != columns:
        raise InputError(f"{path}: line 1: the columns must be {','.join(columns)}")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(columns):
            raise InputError(f"{path}: line {number}: {len(line)} values, not {len(columns)}")
    return tuple(map(list, zip(*lines[1:]))) or ([],) * len(columns)


def _numbers(path, values, kind):
    try:
        return np.array([kind(value) for value in values])
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
