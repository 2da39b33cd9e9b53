"""Scores of trials, and the files that keep what every figure is computed from.

metrics/scores/<model>.csv: enrol,test,target,score of every verification trial. metrics/evaluation/<model>/ranks.csv:
group,test,speaker,rank of every identification, where rank is that of the right speaker among the enrolments
of the group (all, seen or unseen speakers); top-1 accuracy is the share of rank 1.
"""

import csv
from itertools import zip_longest

import numpy as np

from src.common.files import write_csv
from src.runtime.errors import InputError
from src.runtime.scoring import mean_direction, normalised

DECIMALS = 8  # finer than what float32 embeddings determine
SCORES = ("enrol", "test", "target", "score")
RANKS = ("group", "test", "speaker", "rank")
_CHUNK = 1 << 12  # trials scored at once


def cosine(embeddings, trials):
    """Cosine of every trial, float64 [n], rounded to the decimals that are written.

    embeddings: as in `vectors`.
    """
    enrolled, tests = vectors(embeddings, trials)
    scores = np.empty(len(trials))
    for start in range(0, len(trials), _CHUNK):
        part = slice(start, start + _CHUNK)
        np.einsum("td,td->t", enrolled[trials.enrol[part]], tests[trials.test[part]], out=scores[part])
    return scores.round(DECIMALS)


def vectors(embeddings, trials):
    """Length-normalised vectors, float64, of the trials' enrolments and of their test utterances.

    embeddings: [rows, dim] of the rows that the trials were made from, none of them zero. An enrolment is the
    mean of its utterances' length-normalised embeddings.
    """
    embeddings = np.asarray(embeddings, dtype=np.float64)
    enrolled = np.stack([mean_direction(embeddings[list(rows)]) for rows in trials.enrol_rows])
    return enrolled, normalised(embeddings[trials.test_rows])


def write_scores(path, trials, scores):
    """Write every trial with its score; reading gives back the very scores that `cosine` gave."""
    write_csv(path, SCORES, ([*key, f"{score:.{DECIMALS}f}"] for key, score in zip(_keys(trials), scores)))


def read_scores(path, trials):
    """The trials' scores from such a file: float64 [n].

    Raises InputError when the file is missing or damaged, or holds other trials than these, in this order.
    """
    scores = np.empty(len(trials))
    for number, (line, key) in enumerate(zip_longest(_lines(path, SCORES), _keys(trials))):
        if line is None or line[:-1] != key:
            raise InputError(f"{path}: its trials are not those of the present test split; run its stage again")
        try:
            scores[number] = float(line[-1])
        except ValueError as error:
            raise InputError(f"{path}: score: {error}") from None
    return scores


def _keys(trials):
    """The columns of a trial but for its score, trial by trial."""
    for enrol, test, target in zip(trials.enrol, trials.test, trials.targets):
        yield [trials.enrol_names[enrol], trials.test_names[test], str(int(target))]


def write_ranks(path, ranks):
    """Write {group: [(test utterance, speaker, rank), ...]}."""
    write_csv(path, RANKS, ((group, *line) for group, lines in ranks.items() for line in lines))


def read_ranks(path, ranks):
    """Such a file's content, for the same groups and test utterances as in `ranks`, in the same form.

    Raises InputError when the file is missing or damaged, or holds other test utterances, or in another
    order.
    """
    found = {group: [] for group in ranks}
    for group, test, speaker, rank in _lines(path, RANKS):
        if not rank.isdecimal() or rank == "0":
            raise InputError(f"{path}: {test}: rank {rank!r}: a number from 1 is needed")
        found.setdefault(group, []).append((test, speaker, int(rank)))
    if [[(group, *line[:2]) for line in lines] for group, lines in found.items()] != [
        [(group, *line[:2]) for line in lines] for group, lines in ranks.items()
    ]:
        raise InputError(f"{path}: its probes are not those of the present test split; run its stage again")
    return found


def _lines(path, names):
    """The lines, lists of str, of a CSV file that has just these columns."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            if tuple(next(lines, ())) != names:
                raise InputError(f"{path}: line 1: the columns must be {','.join(names)}")
            for number, line in enumerate(lines, start=2):
                if len(line) != len(names):
                    raise InputError(f"{path}: line {number}: {len(line)} values, {len(names)} are needed")
                yield line
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file: {error}") from None
