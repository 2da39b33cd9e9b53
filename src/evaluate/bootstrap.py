"""Joint bootstrap over speakers: how sure a metric is, or the difference of two models' metrics.

A resample draws as many speakers as there are, with replacement. A non-target trial counts as often as the
product of its two speakers' counts says; a target trial, which has one speaker, as often as that speaker's
count says. (The count squared would make the intervals far too wide: they then hold the truth in 100 % of
test sets.) One set of resamples serves all models, so that differences are paired.

Measured: 1,000 resamples of all detection metrics of 40,000 trials take 0.2 to 0.5 s of one core (AMD EPYC), with
48 to 1,000 speakers and up to 5,000 corners of the ROC.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from src.evaluate import metrics

_SAME = 1e-9  # values this near to one another differ by rounding alone
DIGITS = 6  # of figures in files
# Of the ROC, at which resamples are measured at most: steps of 0.001 probits, with a few trials in each, between which a rate
# is off by less than a hundredth of its interval.
CORNERS = 10_000
_CELLS = 1 << 25  # numbers held at once, by all threads together, in each of a few arrays
_THREADS = 4  # at most

T = TypeVar("T")


def resamples(speakers: int, number: int, seed: int) -> np.ndarray:
    """How often each speaker is drawn in each resample: int [number, speakers]."""
    rng = np.random.default_rng([seed, speakers])
    return rng.multinomial(speakers, np.full(speakers, 1 / speakers), number)


@dataclass(frozen=True)
class Sessions:
    """Sessions as they were drawn within the speakers of some resamples.

    speakers: int [sessions], the speaker of each; drawn: int [resamples, sessions], how often it was drawn.
    """

    speakers: np.ndarray
    drawn: np.ndarray


def within_speakers(counts: np.ndarray, speakers: np.ndarray, whole: np.ndarray, seed: int) -> Sessions:
    """Sessions drawn within the speakers of resamples, jointly with them.

    counts: int [resamples, speakers], as `resamples` gives; speakers: int [sessions], the speaker of each; whole: bool
    [sessions], those that are not drawn but are there as often as their speaker. Each time that a speaker is drawn, as
    many of the speaker's sessions as there are are drawn with replacement (the joint bootstrap over speakers and
    sessions of Ferrer et al., "A Speaker Verification Backend with Robust Performance across Conditions", Computer
    Speech & Language 71, 2022, and its DCA-PLDA, which draws sessions from those of all the drawn speakers at once).
    Quantiles are wider than those over speakers alone, on the safe side (tests/evaluate/test_coverage.py).
    """
    rng = np.random.default_rng([seed, *counts.shape, len(speakers)])
    drawn = counts[:, speakers]
    order = np.argsort(speakers, kind="stable")
    order = order[~whole[order]]
    for sessions in np.split(order, np.flatnonzero(np.diff(speakers[order])) + 1):
        if len(sessions) > 1:
            share = np.full(len(sessions), 1 / len(sessions))
            drawn[:, sessions] = rng.multinomial(len(sessions) * counts[:, speakers[sessions[0]]], share)
    return Sessions(speakers, drawn)


def detection(
    scores: np.ndarray,
    targets: np.ndarray,
    enrol: np.ndarray,
    test: np.ndarray,
    counts: np.ndarray,
    priors: Sequence[float] = metrics.PRIORS,
    llrs: np.ndarray | None = None,
    sessions: Sessions | None = None,
) -> dict[str, np.ndarray]:
    """The metrics of `metrics.detection` in every resample: {key: float64 [resamples]}.

    scores, targets, llrs: [n], as there; enrol, test: int [n], of each trial's sides the speakers, columns of `counts`
    [resamples, speakers], or, with `sessions`, the sessions. NaN where a resample has lost all trials of one class. The
    work grows with the number of corners of the ROC, of pairs of speakers (or sessions) and of trials, times that of
    resamples.
    """
    ranking = metrics.rank(scores, targets)
    costs = metrics.trial_costs(ranking.scores if llrs is None else llrs[ranking.order], ranking.targets, priors)

    def measured(by_class, mean_costs):
        return metrics.from_counts(*by_class, priors) | dict(zip(costs, mean_costs))

    by_chunk = on_roc(ranking, enrol, test, counts, measured, list(costs.values()), sessions)
    return {key: np.concatenate([chunk[key] for chunk in by_chunk]) for key in by_chunk[0]}


def on_roc(
    ranking: metrics.Ranking,
    enrol: np.ndarray,
    test: np.ndarray,
    counts: np.ndarray,
    measure: Callable[[list[np.ndarray], np.ndarray], T],
    costs: Sequence[np.ndarray] = (),
    sessions: Sessions | None = None,
) -> list[T]:
    """What `measure` gives for the resamples, chunk after chunk, from the weights of target and of non-target trials
    [corners, resamples], from one to the next of `ranking.corners(CORNERS)`, and from the mean of each of `costs` over
    targets plus that over non-targets [costs, resamples].

    enrol, test: int [n], as for `detection`, in the order of its scores; costs: [n] each, in the order of the ranking.
    """
    corners = ranking.corners(CORNERS)
    run = ranking.runs(corners)
    drawn = counts if sessions is None else sessions.drawn
    speakers = np.arange(counts.shape[1]) if sessions is None else sessions.speakers
    first, second = (np.asarray(side)[ranking.order] for side in (enrol, test))
    one, other, units = np.minimum(first, second), np.maximum(first, second), len(speakers)
    kind = np.where(speakers[one] != speakers[other], 2, one != other)  # 1: two sessions of one speaker
    pair = (kind * units + one) * units + other
    parts = []
    # Trials of one pair have one weight: it is spread over the ROC by one product.
    for mask in (ranking.targets, ~ranking.targets):
        pairs, column = np.unique(pair[mask], return_inverse=True)
        spread = csr_array((np.ones(len(column)), (run[mask], column)), shape=(len(corners), len(pairs)))
        sums = np.array([np.bincount(column, cost[mask], len(pairs)) for cost in costs]).reshape(-1, len(pairs))
        inside, between = np.searchsorted(pairs, (units**2, 2 * units**2))  # where such pairs begin
        sides = pairs // units % units, pairs % units
        parts.append(((*sides, inside, between), spread, sums, np.bincount(column)))
    threads = min(_THREADS, os.cpu_count() or 1)
    chunks = -(-len(counts) * (sum(part[1].shape[1] for part in parts) + len(corners)) * threads // _CELLS)

    def measured(rows):
        often = drawn[rows].T.astype(np.float64)
        shares = often / np.maximum(counts[rows].T[speakers], 1)
        by_class: list[np.ndarray] = []
        mean_costs = np.zeros((len(costs), len(rows)))
        for pairs, spread, sums, trials in parts:
            weights = _weights(often, shares, *pairs)
            by_class.append(spread @ weights)
            with np.errstate(invalid="ignore"):
                mean_costs = mean_costs + (sums @ weights) / (trials @ weights)
        return measure(by_class, mean_costs)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(measured, np.array_split(np.arange(len(counts)), min(chunks, len(counts)))))


def _weights(often, shares, one, other, inside, between):
    """How often the trials between two speakers or sessions, one and other [pairs], are in resamples: [pairs, resamples].

    often: [sessions, resamples], how often each is drawn; shares: the same for each time that its speaker was drawn, since
    two sessions of one speaker are there as often as that, not as its square; inside, between: where pairs of such two,
    and then those of two speakers, begin.
    """
    weights = often[one]
    weights[inside:between] *= shares[other[inside:between]]
    weights[between:] *= often[other[between:]]
    return weights


def identification(correct: np.ndarray, speakers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of probes identified in every resample, float64 [resamples]; a probe counts as often as its
    speaker.

    correct: bool [probes]; speakers: int [probes], columns of `counts`. The enrolments stay as they are.
    NaN where no speaker with probes was drawn.
    """
    sums = np.array([np.bincount(speakers, each, counts.shape[1]) for each in (correct, np.ones(len(speakers)))])
    with np.errstate(invalid="ignore"):
        right, probes = sums @ counts.T
        return right / probes


def interval(estimate: float, values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """95 % interval (low, high) of a metric.

    estimate: over all trials; values: [resamples], NaN where there is none; counts: int [resamples, speakers],
    the resamples.

    Quantiles of the values, bias-corrected and accelerated (BCa: Efron, "Better Bootstrap Confidence
    Intervals", JASA, 1987): error rates of few speakers are skewed, and a minimum over thresholds is too low on
    few trials, and lower again in a resample. The acceleration is from each speaker's `_influence`. The
    quantiles are taken as much further out as Student's t is than the normal distribution (Hesterberg, "What
    Teachers Should Know About the Bootstrap", The American Statistician, 2015), with `_freedom` degrees.
    """
    values, influence = _influence(values, counts)
    below, above = np.mean(values < estimate - _SAME), np.mean(values > estimate + _SAME)
    bias = ndtri(np.clip((1 + below - above) / 2, 0.5 / len(values), 1 - 0.5 / len(values)))
    total = np.sum(influence**2)
    acceleration = np.sum(influence**3) / (6 * total**1.5) if total else 0
    speakers = len(influence)
    reach = np.sqrt(speakers / (speakers - 1)) * stdtrit(_freedom(influence), (0.025, 0.975)) + bias
    # The least divisor keeps a quantile on its side where few speakers decide everything.
    tails = ndtr(bias + reach / np.maximum(1 - acceleration * reach, 0.1))
    low, high = np.quantile(values, tails)
    return float(min(low, estimate)), float(max(high, estimate))


def cost_interval(
    estimate: float, values: np.ndarray, counts: np.ndarray, widening: float, shift: float = 0
) -> tuple[float, float]:
    """95 % interval (low, high) of a positive metric that few trials of high cost decide; input as for `interval`.

    Student's t, with `_freedom` degrees, times `standard_error`, on the logarithm. A test set without such trials has
    not only a low cost but does not show either how far it varies: the interval is wider by a factor, `widening`, and
    moved by `shift` times the bias that the resamples show, so that in simulation it holds the truth in 95 % of test sets
    (Loh, "Calibrating Confidence Coefficients", JASA, 1987; tests/evaluate/test_coverage.py).
    """
    if estimate <= 0:
        return float(estimate), float(estimate)
    error = standard_error(values, counts)
    values, influence = _influence(values, counts)
    middle = np.log(estimate) - shift * (values.mean() - estimate) / estimate
    reach = widening * stdtrit(_freedom(influence), 0.975) * error / estimate
    return float(min(np.exp(middle - reach), estimate)), float(max(np.exp(middle + reach), estimate))


def rate_interval(estimate: float, values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """95 % interval (low, high) of an error rate at a threshold that few non-target trials decide; input as for
    `interval`.

    As `difference_interval` with `by_pairs`, on the logit of the values' mean.
    """
    error = _error_by_pairs(values, counts)
    values, influence = _influence(values, counts)
    middle = values.mean()
    if not 0 < middle < 1:
        return float(estimate), float(estimate)
    reach = stdtrit(_freedom(influence), 0.975) * error / (middle * (1 - middle))
    low, high = expit(logit(middle) - reach), expit(logit(middle) + reach)
    return float(min(low, estimate)), float(max(high, estimate))


def difference_interval(
    estimate: float, values: np.ndarray, counts: np.ndarray, by_pairs: bool = False
) -> tuple[float, float]:
    """95 % interval (low, high) of the difference of two models in a metric; input as for `interval`.

    Student's t, with `_freedom` degrees, times `standard_error`, to both sides of the values' mean, and as far
    as the estimate where that is outside. Most of what two models have in common cancels in a difference;
    what remains, of a metric that steps from trial to trial, is largely the roughness of the steps. Each
    resample adds to that, so that the values spread too far, while their mean has less of it than the
    estimate (Efron, "Estimation and Accuracy After Model Selection", JASA, 2014). by_pairs: the metric hangs on few
    non-target trials (see `_error_by_pairs`).
    """
    error = (_error_by_pairs if by_pairs else standard_error)(values, counts)
    values, influence = _influence(values, counts)
    reach = stdtrit(_freedom(influence), 0.975) * error
    middle = values.mean()
    return float(min(middle - reach, estimate)), float(max(middle + reach, estimate))


def outcome_difference_interval(changes: np.ndarray, speakers: np.ndarray, step: float = 1.0) -> tuple[float, float]:
    """95 % interval (low, high) of a difference in the share of probes that two models get right.

    changes: float [probes], how much more right the one model is than the other, -1 to 1; speakers: int [probes]; step:
    the least that a probe can change by.
    Student's t times the standard error of a ratio of sums over speakers (Obuchowski, "On the Comparison of
    Correlated Proportions for Clustered Data", Statistics in Medicine, 1998), with one more change each way in the
    variance (Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on
    Paired Data", Journal of Educational and Behavioral Statistics, 2012): where two models get nearly the same probes
    right, neither the test set nor its resamples show how many others they would not.
    """
    _, columns = np.unique(speakers, return_inverse=True)
    size, probes = columns.max() + 1, len(changes)
    middle = changes.mean()
    rests = np.bincount(columns, changes - middle, size)
    variance = np.sum(rests**2) * size / max(size - 1, 1) + 2 * step**2
    reach = stdtrit(max(size - 1, 1), 0.975) * np.sqrt(variance) / probes
    return float(max(middle - reach, -1)), float(min(middle + reach, 1))


def standard_error(values: np.ndarray, counts: np.ndarray) -> float:
    """Of the values' mean, as an estimate: the infinitesimal jackknife, less what chance adds to it because the
    resamples are so few (Wager, Hastie and Efron, "Confidence Intervals for Random Forests", JMLR, 2014), with
    the factor that makes up for the bootstrap's dividing by the speakers, not by one less. Input as for
    `interval`. At least a third of the values' standard deviation: with 100 resamples chance could take all."""
    values, influence = _influence(values, counts)
    speakers = len(influence)
    variance = np.sum(influence**2) - (speakers - 1) * values.var() / len(values)
    return float(np.sqrt(max(variance, values.var() / 9) * speakers / (speakers - 1)))


def _error_by_pairs(values, counts):
    """`standard_error` without what the noise of single non-target trials adds to it for the second of their speakers.

    That noise is in the squared error twice, once for either speaker, and in the truth once (Aronow, Samii and
    Assenova, "Cluster-Robust Variance Estimation for Dyadic Data", Political Analysis, 2015). It is the part of the
    values' variance that goes with products of two speakers' counts: the sum over pairs of squared covariances, without
    what chance adds. The steps of a metric look the same, so that at most a quarter of the squared error is taken off,
    where in theory it may be half.
    """
    error = standard_error(values, counts)
    there = ~np.isnan(values)
    values, drawn = values[there] - values[there].mean(), counts[there] - 1.0
    both = (drawn @ drawn.T) ** 2 - drawn**2 @ (drawn**2).T  # sums over pairs of different speakers, twice
    np.fill_diagonal(both, 0)
    pairs = values @ both @ values / (2 * len(values) * max(len(values) - 1, 1))
    return np.sqrt(error**2 - np.clip(pairs, 0, error**2 / 4))


def rounded_ci(low: float, high: float) -> dict[str, float]:
    """An interval as the files have it."""
    return {"low": round(float(low), DIGITS), "high": round(float(high), DIGITS)}


def rounded(value: float, low: float, high: float) -> dict[str, float]:
    """A difference with its interval as the files have it."""
    return {"value": round(float(value), DIGITS), **rounded_ci(low, high)}


def smallest_detectable(differences: np.ndarray, counts: np.ndarray) -> float:
    """The smallest difference of two models that the test would show in 80 % of test sets like this one.

    differences: [resamples], of the models' metrics, paired, NaN where there is none; counts: as for
    `interval`. 2.8 standard errors, the sum of the normal quantiles of 97.5 % (a two-sided test at 5 %) and
    80 % (Bloom, "Minimum Detectable Effects", Evaluation Review, 1995).
    """
    return float((ndtri(0.975) + ndtri(0.8)) * standard_error(differences, counts))


def _influence(values, counts):
    """The values that there are, and how the metric goes with each speaker's count: their covariances over
    these resamples, [speakers]; 0 where the values differ by rounding alone."""
    there = ~np.isnan(values)
    values = values[there]
    influence = (values - values.mean()) @ (counts[there] - 1) / len(values)
    return values, np.where(np.ptp(values) > _SAME, influence, 0)


def _freedom(influence):
    """Degrees of freedom of a variance that is a sum of squares of these: less than speakers - 1 where few
    speakers decide it. Twice its square over its own variance (Satterthwaite, "An Approximate Distribution of
    Estimates of Variance Components", Biometrics Bulletin, 1946), from their fourth powers."""
    most, squares = len(influence) - 1, influence**2
    if not squares.any():
        return most
    excess = np.sum(squares**2) / np.sum(squares) ** 2 - 1 / len(influence)
    return 2 / max(excess, 2 / most)
