"""Score normalisation: how far a score is from those that the same voices get against a cohort of others."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from src.data import manifest
from src.data.manifest import Row
from src.evaluate import scores
from src.evaluate.trials import Sides, Trials
from src.runtime.errors import InputError
from src.runtime.scoring import normalised, spread
from src.runtime.scoring import s_norm as _s_norm

COHORT = "finetune"  # the split whose speakers are the cohort
_CELLS = 1 << 22  # scores held at once


def cohort_rows(rows: Sequence[Row], top: int | None = None) -> list[Row]:
    """The cohort's manifest rows.

    Raises InputError when one of its speakers is a test speaker, or when there are fewer speakers than two
    or than `top`.
    """
    chosen = manifest.select(rows, COHORT)
    speakers = {row.speaker for row in chosen}
    shared = manifest.in_both(rows, COHORT, "test")
    if shared:
        raise InputError(
            f"evaluate.normalisation: {shared[0]} is in the cohort (split {COHORT}) and in the test split; "
            "the cohort must have none of the test speakers"
        )
    if len(speakers) < 2:
        raise InputError(
            f"evaluate.normalisation: the cohort (split {COHORT}) has {len(speakers)} speakers; two are needed"
        )
    if top and top > len(speakers):
        raise InputError(f"evaluate.cohort_top: {top}: the cohort (split {COHORT}) has {len(speakers)} speakers")
    return chosen


def speaker_models(embeddings: ArrayLike, speakers: Sequence[str]) -> np.ndarray:
    """The mean of each speaker's length-normalised embeddings, length-normalised: [speakers, dim], by name.

    embeddings: [rows, dim], none of them zero; speakers: the name of each row's.
    """
    _, numbers, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    unit = normalised(np.asarray(embeddings, dtype=np.float64))[np.argsort(numbers, kind="stable")]
    return normalised(np.stack([part.mean(axis=0) for part in np.split(unit, np.cumsum(counts)[:-1])]))


def s_norm(
    values: np.ndarray, embeddings: ArrayLike, trials: Trials, cohort: np.ndarray, top: int | None = None
) -> np.ndarray:
    """Normalised scores of the trials, float64 [n], rounded to the decimals that are written.

    values: their cosines; embeddings: [rows, dim] of the rows that the trials were made from; cohort:
    `speaker_models`. With e and t the enrolment and the test utterance, the score is

        ((s - mean(S_e)) / std(S_e) + (s - mean(S_t)) / std(S_t)) / 2

    where S_e are the cosines of e to the cohort, and S_t those of t: symmetric normalisation, s-norm. With
    `top`, each is of the `top` highest alone: adaptive s-norm (Cumani et al., "Comparison of Speaker
    Recognition Approaches for Real Applications", Interspeech 2011; S-norm1 in Matějka et al., "Analysis of
    Score Normalization in Multilingual Speaker Recognition", Interspeech 2017). Raises InputError when the
    cohort's scores do not differ.
    """
    enrolled, tests = (spread(side, cohort, top) for side in scores.vectors(embeddings, trials))
    return _normalised(values, enrolled[:, trials.enrol], tests[:, trials.test])


def grid(
    embeddings: ArrayLike, sides: Sides, cohort: np.ndarray | None = None, top: int | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """The scores of every enrolment with every test utterance, some test utterances at a time: (which of them, float64
    [enrolments, those]), rounded to the decimals that are written.

    Cosines; with a cohort normalised as by `s_norm`, where the input and the errors are described.
    """
    enrolled, tests = scores.vectors(embeddings, sides)
    spreads = None if cohort is None else [spread(side, cohort, top) for side in (enrolled, tests)]
    step = max(1, _CELLS // len(enrolled))
    for start in range(0, len(tests), step):
        part = slice(start, min(start + step, len(tests)))
        cosines = (enrolled @ tests[part].T).round(scores.DECIMALS)
        yield (
            part,
            cosines if spreads is None else _normalised(cosines, spreads[0][..., None], spreads[1][:, None, part]),
        )


def whole_grid(
    embeddings: ArrayLike, sides: Sides, cohort: np.ndarray | None = None, top: int | None = None
) -> np.ndarray:
    """What `grid` gives, all at once: float64 [enrolments, test utterances]."""
    return np.hstack([cosines for _, cosines in grid(embeddings, sides, cohort, top)])


def _normalised(values, enrolled, tests):
    return _s_norm(values, enrolled, tests).round(scores.DECIMALS)
