"""What trials of speakers of one's own say of a model: calibration, a threshold, figures, and how many speakers are missing.

Calibrated scores are not to be judged on the speakers that they were calibrated on: for actual costs and Cllr the
calibration of a trial is one fitted to trials of other speakers alone (cross-validation).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from src.data.manifest import Row
from src.evaluate import accuracy, bootstrap, metrics, score_calibration, sessions
from src.evaluate.trials import Trials, subset
from src.runtime.calibration import Calibration, Nontargets
from src.runtime.errors import InputError

FOLDS = 5  # of speakers
_ERRORS = 30  # the rule of 30: see `metrics.enough_for`


@dataclass(frozen=True)
class Asked:
    """What the threshold is for: a prior probability of a target, at equal costs of both errors, or a false match rate;
    neither for equal error rates."""

    prior: float | None = None
    fmr: float | None = None


def calibrated(scores: np.ndarray, trials: Trials, tail: Nontargets | None, asked: Asked) -> tuple[Calibration, bool]:
    """(the calibration of scores, float [n], with the threshold that is asked for; whether that is extrapolated).

    For a false match rate it is the lowest with at most that share of the non-target trials at or above it or, where
    there are fewer than `metrics.enough_for` asks, that of the `tail`. Raises InputError where the scores do not allow
    it, and as `score_calibration.fit`.
    """
    fitted = replace(score_calibration.fit(scores, trials.targets), nontargets=tail)
    if asked.prior is not None:
        if fitted.scale <= 0:
            raise InputError("--prior: the scores of the same speaker are not higher than others: no threshold")
        threshold = (math.log((1 - asked.prior) / asked.prior) - fitted.offset) / fitted.scale
        return replace(fitted, threshold=round(threshold, 6)), False
    if asked.fmr is None:
        return fitted, False
    nontargets = np.sort(scores[~trials.targets])
    if len(nontargets) >= metrics.enough_for(asked.fmr):
        above = int(asked.fmr * len(nontargets) + 1e-9)
        return replace(fitted, threshold=float(np.nextafter(nontargets[-above - 1], np.inf))), False
    if not fitted.nontargets:
        raise InputError(f"--fmr: {len(nontargets)} non-target trials: too few even to extrapolate from")
    return replace(fitted, threshold=round(fitted.nontargets.threshold(asked.fmr, 1), 6)), True


def cross_validated(scores: np.ndarray, trials: Trials) -> np.ndarray | None:
    """Log-likelihood ratios, float64 [n], of trials by calibrations of other speakers' trials; None of too few speakers."""
    number = len(trials.speakers)
    folds = FOLDS if number >= 2 * FOLDS else number
    fold = np.arange(number) % folds
    first, second = fold[trials.enrol_speakers[trials.enrol]], fold[trials.test_speakers[trials.test]]
    llrs = np.empty(len(scores))
    for one, other in itertools.combinations_with_replacement(range(folds), 2):
        judged = np.minimum(first, second) == one
        judged &= np.maximum(first, second) == other
        if not judged.any():
            continue
        others = ~np.isin(first, (one, other)) & ~np.isin(second, (one, other))
        try:
            llrs[judged] = score_calibration.fit(scores[others], trials.targets[others]).llrs(scores[judged])
        except InputError:  # no trials of both kinds
            return None
    return llrs


def figures(
    rows: Sequence[Row],
    scores: np.ndarray,
    trials: Trials,
    fitted: Calibration,
    asked: Asked,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """`eer`, `min_cllr`, `min_dcf_<prior>` and, of cross-validated calibrations, `cllr` and `act_dcf_<prior>`, each with its
    `<key>_ci` {low, high}; `at_threshold`: `fmr` and `fnmr` with intervals, `false_matches`, `misses`; trials, target_trials,
    speakers, utterances; and `speakers_needed`, so many in all, for 30 errors of the kind that is asked for (the rule of
    30: see `metrics.enough_for`). `refused`, {key: why}, has what cannot be given. Fractions; intervals at 95 %, over
    resampled speakers.
    """
    part = subset(trials, np.ones(len(trials), dtype=bool))
    counts = bootstrap.resamples(part.speakers, resamples, seed)
    drawn, units = sessions.none(part, counts), sessions.of(rows)
    if units:
        drawn = sessions.draw(units, trials, part, np.zeros(0, dtype=int), counts, seed)
    targets, llrs = trials.targets, cross_validated(scores, trials)
    priors = tuple(sorted({*metrics.PRIORS, *filter(None, [asked.prior])}))
    estimates = metrics.detection(scores, targets, priors, llrs=llrs)
    values = bootstrap.detection(scores, targets, drawn.enrol, drawn.test, counts, priors, llrs, drawn.sessions)
    calibrated_keys = ("cllr", *map(metrics.act_dcf_key, priors))
    summary: dict = {}
    for key in ("eer", *map(metrics.dcf_key, priors), *map(metrics.act_dcf_key, priors), "cllr", "min_cllr"):
        if llrs is not None or key not in calibrated_keys:
            summary[key] = round(float(estimates[key]), bootstrap.DIGITS)
            summary[f"{key}_ci"] = bootstrap.rounded_ci(*accuracy.interval(key, estimates[key], values[key], counts))
    if llrs is None:
        why = "too few speakers to calibrate on others than those that are judged"
        summary["refused"] = dict.fromkeys(calibrated_keys, why)
    summary["at_threshold"] = _errors(scores >= fitted.accepted, part, counts)
    nontargets = int(np.count_nonzero(~targets))
    summary |= {
        "trials": len(targets),
        "target_trials": len(targets) - nontargets,
        "speakers": part.speakers,
        "utterances": len(np.unique(trials.test)),
    }
    rate = asked.fmr
    if asked.prior is not None and fitted.nontargets:
        rate = fitted.nontargets.share(fitted.accepted)
    if rate:
        # Non-target trials grow as the number of pairs of speakers.
        pairs = part.speakers * (part.speakers - 1) * _ERRORS / rate / nontargets
        most = math.ceil((1 + math.sqrt(1 + 4 * pairs)) / 2 - 1e-9)
        summary["speakers_needed"] = max(part.speakers, most)
    return summary


def _errors(accepted, part, counts):
    """FMR and FNMR of decisions, bool [n], with intervals."""
    size, count = part.speakers, counts.astype(np.float64)
    wrong, result = accepted != part.targets, {}
    for key, number, mask in (("fmr", "false_matches", ~part.targets), ("fnmr", "misses", part.targets)):
        errors, total = (_by_pair(part, mask & which, size) for which in (wrong, mask))
        if key == "fnmr":
            errors, total = (count @ np.diag(part_) for part_ in (errors, total))
        else:
            errors, total = (np.einsum("rs,rs->r", count @ part_, count) for part_ in (errors, total))
        with np.errstate(invalid="ignore"):
            values = errors / total
        n, k = int(mask.sum()), int((mask & wrong).sum())
        low, high = bootstrap.rate_interval(k / n, values, counts)
        if not k:
            high = 1 - 0.025 ** (1 / n)  # if trials were independent: at least
        result |= {key: round(k / n, bootstrap.DIGITS + 2), f"{key}_ci": bootstrap.rounded_ci(low, high), number: k}
    return result


def _by_pair(part, mask, size):
    """How many trials there are of each pair of speakers: float64 [speakers, speakers]."""
    flat = np.bincount(part.enrol[mask] * size + part.test[mask], minlength=size * size)
    return flat.reshape(size, size).astype(np.float64)
