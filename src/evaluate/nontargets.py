"""The tail of the scores of different speakers, from which a search in a gallery has its threshold."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from src.data.manifest import Row
from src.evaluate import normalise
from src.evaluate.validation import Speech
from src.runtime.calibration import Nontargets

_TAIL = 0.02  # share of the scores that the tail is fitted to
_FEWEST = 10  # scores that it is fitted to
_DIGITS = 6
_MOST = 1 << 22  # trials of a round


def measure(
    embeddings: np.ndarray,
    rows: Sequence[Row],
    enrolments: int = 1,
    cohort: np.ndarray | None = None,
    top: int | None = None,
) -> Nontargets | None:
    """The tail of all scores between speakers of these rows, every utterance enrolled in turn (see `Speech.rounds`); of so
    many rows that a round would be of more than some millions of trials, a part at even distances.

    embeddings: [rows, dim]; cohort, top: as for `normalise.s_norm`. None as `tail`.
    """
    most = max(1, _MOST // len({row.speaker for row in rows}))
    if len(rows) > most:
        kept = np.arange(most) * len(rows) // most
        embeddings, rows = embeddings[kept], [rows[int(number)] for number in kept]
    found = []
    for order, trials in Speech(rows, enrolments, 1).rounds():
        found.append(normalise.whole_grid(embeddings[order], trials, cohort, top).ravel()[~trials.targets])
    return tail(np.concatenate(found), enrolments)


def tail(values: np.ndarray, enrolments: int = 1) -> Nontargets | None:
    """The tail of scores of non-target trials, float [n]: the line through the highest 2 % of them, against the normal
    distribution's quantiles. None of too few scores, or of scores that are all the same.

    A normal tail, because of those tried it comes nearest to the rates that are asked for, on speakers that it was not
    fitted to; a generalised Pareto tail gives several times as many false alarms in large galleries, an exponential one
    hardly any, and misses for them (docs/evaluation.md).
    """
    number = max(_FEWEST, round(_TAIL * len(values)))
    if len(values) < 2 * number:
        return None
    highest = np.sort(values)[-number:]
    quantiles = -ndtri((np.arange(number, 0, -1) - 0.5) / len(values))
    scale, location = np.polyfit(quantiles, highest, 1)
    if scale < 10.0**-_DIGITS:
        return None
    return Nontargets(round(float(location), _DIGITS), round(float(scale), _DIGITS), len(values), enrolments)
