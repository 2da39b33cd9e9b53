"""Score normalisation: how far a score is from those that the same voices get against a cohort of others."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from src.data import manifest
from src.data.manifest import Row
from src.evaluate import scores
from src.evaluate.trials import Trials
from src.runtime.errors import InputError
from src.runtime.scoring import normalised

COHORT = "finetune"  # the split whose speakers are the cohort


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
    names, numbers = np.unique(speakers, return_inverse=True)
    unit = normalised(np.asarray(embeddings, dtype=np.float64))
    return normalised(np.stack([unit[numbers == number].mean(axis=0) for number in range(len(names))]))


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
    enrolled, tests = scores.vectors(embeddings, trials)
    (enrol_mean, enrol_std), (test_mean, test_std) = (_spread(side @ cohort.T, top) for side in (enrolled, tests))
    by_enrol = (values - enrol_mean[trials.enrol]) / enrol_std[trials.enrol]
    by_test = (values - test_mean[trials.test]) / test_std[trials.test]
    return ((by_enrol + by_test) / 2).round(scores.DECIMALS)


def _spread(cosines, top):
    """Mean and standard deviation of each row's `top` highest values (None: of all)."""
    if top:
        cosines = np.sort(cosines, axis=1)[:, -top:]
    std = cosines.std(axis=1)
    if not (std > 1e-9).all():
        raise InputError("evaluate.normalisation: the cohort's scores of an utterance are all the same")
    return cosines.mean(axis=1), std
