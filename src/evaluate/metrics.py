"""Detection and identification metrics; one sort of the scores serves all detection metrics.

A trial is accepted when its score is at or above the threshold. No threshold can tell trials with equal
scores apart, so they cross it together. Measured: `detection` and `det_points` of 550,000 trials take 0.16 s
of one core (AMD EPYC).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression
from scipy.special import ndtri, xlogy

from src.runtime.errors import InputError

PRIORS = (0.01, 0.05)  # of a target, for the detection costs
FMRS = (0.01, 0.001)  # false match rates at which the false non-match rate is given


@dataclass(frozen=True)
class Ranking:
    """Trials in the order of their scores.

    scores: float64 [n], ascending; targets: bool [n]; order: int [n], where each was in the input;
    starts: int [groups], where each group of equal scores starts.
    """

    scores: np.ndarray
    targets: np.ndarray
    order: np.ndarray
    starts: np.ndarray

    def corners(self, most: int | None = None) -> np.ndarray:
        """Where the ROC turns: int [corners], those of `starts` that begin another kind of group; of more than `most`,
        `most` of them (see `spread`).

        Neighbouring groups of nothing but targets, or of nothing but non-targets, make one straight line of
        the ROC, so that EER, minDCF and minimum Cllr need only the corners, however the trials are weighted.
        """
        targets, nontargets = self.counts(self.starts)
        kind = np.sign(targets) - np.sign(nontargets)  # 0: both
        turns = np.ones(len(kind), dtype=bool)
        turns[1:] = (kind[1:] != kind[:-1]) | (kind[1:] == 0)
        corners = self.starts[turns]
        if most is None or len(corners) <= most:
            return corners
        places = spread(*error_rates(*self.counts(corners)), most)
        return corners[places[places < len(corners)]]

    def runs(self, corners: np.ndarray) -> np.ndarray:
        """Of each trial, which of `corners` it lies at: int [n], its index among them."""
        return np.repeat(np.arange(len(corners)), np.diff(corners, append=len(self.scores)))

    def counts(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Target and non-target trials from each of `starts` to the next: two int64 arrays."""
        targets = np.add.reduceat(self.targets, starts, dtype=np.int64)
        return targets, np.diff(starts, append=len(self.scores)) - targets


def rank(scores: ArrayLike, targets: ArrayLike) -> Ranking:
    """Sort trials for the metrics below.

    scores: float [n], higher for more alike; targets: bool [n], or 0 and 1.
    Raises InputError when lengths differ, a score is NaN or infinite, or one of the two classes is missing.
    """
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if scores.ndim != 1 or scores.shape != targets.shape:
        shapes = f"scores {scores.shape} and targets {targets.shape}"
        raise InputError(f"{shapes}: two lists of one length are needed")
    if targets.dtype != bool:
        if not np.isin(targets, (0, 1)).all():
            raise InputError("targets: only 0 and 1 are allowed")
        targets = targets.astype(bool)
    if not np.isfinite(scores).all():
        wrong = np.count_nonzero(~np.isfinite(scores))
        raise InputError(f"scores: {wrong} of {len(scores)} are NaN or infinite")
    if targets.all() or not targets.any():
        missing = "non-target" if targets.any() else "target"
        raise InputError(f"no {missing} trials among {len(targets)}: error rates need both")
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    return Ranking(scores, targets[order], order, starts)


def error_rates(targets: np.ndarray, nontargets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Miss and false-alarm rates at every threshold between groups of scores.

    targets, nontargets: [groups, ...], weight of the trials in each group, scores ascending.
    Gives p_miss and p_fa, float64 [groups + 1, ...]: at point k the first k groups are rejected. Where the
    weights of a class are all 0, its rates are NaN.
    """

    def rejected(weights):
        total = np.zeros((len(weights) + 1, *weights.shape[1:]))
        np.cumsum(weights, axis=0, out=total[1:])
        return total

    misses, rejections = rejected(targets), rejected(nontargets)
    with np.errstate(invalid="ignore"):
        return misses / misses[-1], (rejections[-1] - rejections) / rejections[-1]


def spread(p_miss: np.ndarray, p_fa: np.ndarray, most: int) -> np.ndarray:
    """Which of the points of a DET curve to take for at most `most`, as evenly along it as the probits of its rates allow:
    int, ascending, the first and the last among them. p_miss, p_fa: [points], of `error_rates`."""
    if len(p_fa) <= most:
        return np.arange(len(p_fa))
    lowest = min(rates[rates > 0].min() for rates in (p_fa, p_miss)) / 2
    x, y = (ndtri(np.clip(rates, lowest, 1 - lowest)) for rates in (p_fa, p_miss))
    along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    places = np.searchsorted(along, np.linspace(0, along[-1], most - 1))
    return np.unique(np.append(places, len(along) - 1))


def _crossing(p_miss, p_fa):
    """The first point at which p_miss has reached p_fa, and how far on the step to it they meet (0 to 1]."""
    gap = p_miss - p_fa
    point = np.argmax(gap >= 0, axis=0)
    after = np.take_along_axis(gap, point[None], axis=0)[0]
    before = np.take_along_axis(gap, point[None] - 1, axis=0)[0]
    return point, before / (before - after)


def eer_from_rates(p_miss: np.ndarray, p_fa: np.ndarray) -> np.ndarray:
    """Equal error rate, a fraction: where miss and false-alarm rate meet.

    The ROC is taken as linear between neighbouring operating points, as NIST's scoring scripts do
    (compute_eer of the 2016 Speaker Recognition Evaluation, also in wespeaker) and brentq over interp1d of
    scikit-learn's ROC, with which VoxCeleb results are commonly computed. (The EER of the ROC's convex hull,
    as in BOSARIS, is never higher.) Perfect scores give 0, inverted ones 1, equal ones 0.5.

    p_miss, p_fa: [points, ...] of `error_rates`. Gives one value for each place in the trailing axes.
    """
    point, share = _crossing(p_miss, p_fa)
    after = np.take_along_axis(p_miss, point[None], axis=0)[0]
    before = np.take_along_axis(p_miss, point[None] - 1, axis=0)[0]
    return before + share * (after - before)


def min_dcf_from_rates(p_miss: np.ndarray, p_fa: np.ndarray, prior: float) -> np.ndarray:
    """Normalised minimum detection cost with c_miss = c_fa = 1; `prior` is the probability of a target.

    The minimum over thresholds of prior * p_miss + (1 - prior) * p_fa, over what the better of accepting all
    and rejecting all costs, min(prior, 1 - prior) (NIST 2016 Speaker Recognition Evaluation Plan, section 3).
    Shapes as in `eer_from_rates`.
    """
    return (prior * p_miss + (1 - prior) * p_fa).min(axis=0) / _blind_cost(prior)


def _blind_cost(prior):
    """What the better of accepting all and rejecting all costs."""
    if not 0 < prior < 1:
        raise InputError(f"prior {prior}: not between 0 and 1")
    return min(prior, 1 - prior)


def fnmr_from_rates(p_miss: np.ndarray, p_fa: np.ndarray, fmr: float) -> np.ndarray:
    """False non-match rate at a false match rate: the lowest miss rate of the thresholds at which the false-alarm
    rate is at most `fmr` (ISO/IEC 19795-1:2021, where the rates of comparisons are called FNMR and FMR).

    Between two operating points nothing is interpolated. Shapes as in `eer_from_rates`; NaN where a rate is.
    """
    point = np.argmax(p_fa <= fmr, axis=0)
    return np.take_along_axis(p_miss, point[None], axis=0)[0] + 0 * p_fa[0]


def enough_for(fmr: float) -> int:
    """How many non-target trials an FNMR at this FMR needs: those that give 30 false matches.

    The rule of 30: with 30 errors the true rate is within 30 % of the observed one, at 90 % confidence, if trials are
    independent (Doddington et al., "The NIST speaker recognition evaluation: Overview, methodology, systems, results,
    perspective", Speech Communication 31, 2000; ISO/IEC 19795-1). Trials that share a speaker are not, so that
    it is the least; the interval over resampled speakers shows what the trials are worth.
    """
    return math.ceil(30 / fmr - 1e-9)


def trial_costs(llrs: np.ndarray, targets: np.ndarray, priors: Sequence[float] = PRIORS) -> dict[str, np.ndarray]:
    """What every trial costs when scores are natural-log likelihood ratios: {key: float64 [n]}. The metric is the
    mean over targets plus that over non-targets.

    cllr: half of log2(1 + exp(-s)) of a target, or of log2(1 + exp(s)) of a non-target, in bits (Brümmer and du Preez,
    "Application-independent evaluation of speaker detection", Computer Speech & Language, 2006). 0 is perfect;
    always answering 0 costs 1. A cosine is not a likelihood ratio, so its Cllr is far above the minimum.

    act_dcf_<prior>: the actual detection cost, that of `min_dcf_from_rates` at the Bayes threshold log((1 - p) / p)
    instead of the best one (NIST 2016 Speaker Recognition Evaluation Plan, section 3): what decisions cost with a
    threshold set before the test. At or above the threshold is accepted.
    """
    costs = {"cllr": np.logaddexp(0, np.where(targets, -llrs, llrs)) / np.log(2) / 2}
    for prior in priors:
        blind, accepted = _blind_cost(prior), llrs >= np.log((1 - prior) / prior)
        costs[act_dcf_key(prior)] = np.where(targets, prior * ~accepted, (1 - prior) * accepted) / blind
    return costs


def cllr(scores: np.ndarray, targets: np.ndarray) -> float:
    """Cost of the scores read as natural-log likelihood ratios, in bits (see `trial_costs`)."""
    costs = trial_costs(scores, targets, ())["cllr"]
    return costs[targets].mean() + costs[~targets].mean()


def min_cllr_from_counts(targets: np.ndarray, nontargets: np.ndarray) -> float:
    """Cllr after the best monotone map of scores to likelihood ratios, in bits: what calibration cannot mend.

    The map is found by pooling adjacent violators, unsmoothed, both classes weighing the same (Brümmer and du
    Preez, 2006). targets, nontargets: [groups], as in `error_rates`; NaN where those of a class are all 0.
    """
    if not (targets.any() and nontargets.any()):
        return np.nan
    t, n = targets / targets.sum(), nontargets / nontargets.sum()
    held = t + n > 0
    t, n = t[held], n[held]
    blocks = isotonic_regression(t / (t + n), weights=t + n).blocks[:-1]
    # A block's likelihood ratio is t / n: it costs t log(1 + n / t) + n log(1 + t / n).
    t, n = np.add.reduceat(t, blocks), np.add.reduceat(n, blocks)
    return (xlogy(t + n, t + n) - xlogy(t, t) - xlogy(n, n)).sum() / (2 * np.log(2))


def eer_threshold(ranking: Ranking) -> float:
    """The threshold at which the equal error rate is reached.

    Halfway between two scores where miss and false-alarm rate are equal there; where they cross within a
    group of equal scores, that score.
    """
    point, share = _crossing(*error_rates(*ranking.counts(ranking.starts)))
    below = ranking.scores[ranking.starts[point - 1]]
    return float(below if share < 1 else below / 2 + ranking.scores[ranking.starts[point]] / 2)


def det_points(ranking: Ranking) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The corners of the DET curve: thresholds, p_fa, p_miss, float64 [corners + 1], thresholds ascending.

    Rates are fractions (a DET plot shows their probits); the last threshold, inf, rejects everything.
    """
    corners = ranking.corners()
    p_miss, p_fa = error_rates(*ranking.counts(corners))
    return np.append(ranking.scores[corners], np.inf), p_fa, p_miss


def dcf_key(prior: float) -> str:
    """The name of the normalised minDCF at this prior among metrics: min_dcf_0.01."""
    return f"min_dcf_{prior:g}"


def act_dcf_key(prior: float) -> str:
    """The same of the actual DCF: act_dcf_0.01."""
    return f"act_dcf_{prior:g}"


def fnmr_key(fmr: float) -> str:
    """The name of the FNMR at this FMR: fnmr_at_fmr_0.001."""
    return f"fnmr_at_fmr_{fmr:g}"


def detection(
    scores: ArrayLike, targets: ArrayLike, priors: Sequence[float] = PRIORS, llrs: np.ndarray | None = None
) -> dict[str, float]:
    """All detection metrics: eer, min_dcf_<prior>, min_cllr, fnmr_at_fmr_<fmr> for FMRS, and those of `trial_costs`,
    each a float.

    llrs: [n], what the costs are of (None: the scores). Other input and errors as `rank`.
    """
    ranking = rank(scores, targets)
    llrs = ranking.scores if llrs is None else llrs[ranking.order]
    counts = ranking.counts(ranking.corners())
    costs = trial_costs(llrs, ranking.targets, priors)
    by_class = ((cost[ranking.targets].mean(), cost[~ranking.targets].mean()) for cost in costs.values())
    measured = from_counts(*counts, priors) | dict(zip(costs, map(sum, by_class)))
    return {key: float(value) for key, value in measured.items()}


def from_counts(targets: np.ndarray, nontargets: np.ndarray, priors: Sequence[float] = PRIORS) -> dict[str, np.ndarray]:
    """The metrics that follow from the order of the scores alone. targets, nontargets: [groups, ...], as in
    `error_rates`; gives one value for each place in the trailing axes."""
    rates = error_rates(targets, nontargets)
    columns = (counts.reshape(len(counts), -1).T for counts in (targets, nontargets))
    return {
        "eer": eer_from_rates(*rates),
        **{dcf_key(prior): min_dcf_from_rates(*rates, prior) for prior in priors},
        **{fnmr_key(fmr): fnmr_from_rates(*rates, fmr) for fmr in FMRS},
        "min_cllr": np.reshape(list(map(min_cllr_from_counts, *columns)), targets.shape[1:]),
    }


def eer(scores: ArrayLike, targets: ArrayLike) -> float:
    """Equal error rate (see `eer_from_rates`). Input and errors as `rank`."""
    ranking = rank(scores, targets)
    return float(eer_from_rates(*error_rates(*ranking.counts(ranking.corners()))))


def identification_ranks(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Rank of the right speaker for every probe: int [probes], 1 where it is identified (top-1).

    scores: float [enrolments, probes]; own: int [probes], the enrolment of the probe's speaker. The rank is 1
    more than the number of other enrolments that score at least as much: a tie counts against the probe.
    Raises InputError when a score is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise InputError("scores: NaN or infinite")
    return (scores >= scores[own, np.arange(scores.shape[1])]).sum(axis=0)  # its own enrolment is the 1
