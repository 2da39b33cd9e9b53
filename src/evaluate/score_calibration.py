"""Scores as log-likelihood ratios: an affine map, fitted on speakers who are not tested."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from src.common.files import write_json
from src.data import manifest
from src.data.manifest import Row
from src.evaluate import metrics, trials
from src.runtime.calibration import Calibration
from src.runtime.errors import InputError

SPLIT = "validation"
_DIGITS = 6


def rows_and_trials(
    rows: Sequence[Row], enrolments: int, most: int = trials.MOST, seed: int = 0
) -> tuple[list[Row], trials.Trials]:
    """The rows of SPLIT, of all of a manifest's, and all pairs of them (see `trials.all_pairs`).

    Raises InputError when a speaker is in the split test too, or fewer than two speakers have more than
    `enrolments` utterances.
    """
    shared = manifest.in_both(rows, SPLIT, "test")
    if shared:
        raise InputError(
            f"{manifest.PATH}: {shared[0]} is in the splits {SPLIT} and test: scores must be "
            "calibrated on speakers who are not tested"
        )
    chosen = manifest.select(rows, SPLIT)
    try:
        return chosen, trials.all_pairs(chosen, enrolments, most, seed)
    except InputError as error:
        raise InputError(f"{manifest.PATH}: split {SPLIT}, which scores are calibrated on: {error}") from None


def fit(scores: np.ndarray, targets: np.ndarray) -> Calibration:
    """The calibration of scores, float [n], from trials with targets, bool [n].

    The affine map with the lowest Cllr: logistic regression at a prior of 0.5 (Brümmer and du Preez, 2006).
    Trials count with the labels (t + 1) / (t + 2) and 1 / (n + 2), where t and n are how many of either class
    there are, instead of 1 and 0, so that there is a solution where a threshold tells the classes apart (Platt,
    "Probabilistic Outputs for Support Vector Machines", 1999). Scores that are all the same get scale 0.
    Raises InputError as `metrics.rank`.
    """
    threshold = metrics.eer_threshold(metrics.rank(scores, targets))
    mean, std = scores.mean(), scores.std()
    std = std if std > 1e-9 else 1
    unit = (scores - mean) / std
    numbers = np.count_nonzero(targets), np.count_nonzero(~targets)
    labels = np.where(targets, (numbers[0] + 1) / (numbers[0] + 2), 1 / (numbers[1] + 2))
    weights = np.where(targets, 0.5 / numbers[0], 0.5 / numbers[1])

    def cost(parameters):
        llrs = parameters[0] * unit + parameters[1]
        errors = weights * (expit(llrs) - labels)
        value = weights @ (labels * np.logaddexp(0, -llrs) + (1 - labels) * np.logaddexp(0, llrs))
        return value, np.array([errors @ unit, errors.sum()])

    slope, intercept = minimize(cost, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    scale = slope / std
    scale, offset, threshold = (round(float(value), _DIGITS) for value in (scale, intercept - scale * mean, threshold))
    return Calibration(scale, offset, threshold)


def write(path: Path | str, calibration: Calibration) -> None:
    """Write what `calibration.read` reads."""
    write_json(path, calibration.fields())
