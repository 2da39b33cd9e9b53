"""Joint bootstrap over speakers: how sure a metric is, or the difference of two models' metrics.

A resample draws as many speakers as there are, with replacement. A non-target trial counts as often as the
product of its two speakers' counts says; a target trial, which has one speaker, as often as that speaker's
count says. (The count squared would make the intervals far too wide: they then hold the truth in 100 % of
test sets.) One set of resamples serves all models, so that differences are paired.
"""
import numpy as np
from scipy.sparse import csr_array
from scipy.stats import norm, t

from src.evaluate import metrics

# 1 sets the interval around the estimate and leaves differences too wide; 2, around the estimate less its
# bias, doubles the noise of step-like metrics and leaves differences of EERs too narrow. Chosen between by
# simulation.
SHIFT = 1.5
_CELLS = 1 << 22  # numbers held at once in each of a few arrays


def resamples(speakers, number, seed):
    """How often each speaker is drawn in each resample: int [number, speakers]."""
    rng = np.random.default_rng([seed, speakers])
    return rng.multinomial(speakers, np.full(speakers, 1 / speakers), number)


def detection(scores, targets, enrol_speakers, test_speakers, counts, priors=metrics.PRIORS):
    """The metrics of `metrics.detection` in every resample: {key: float64 [resamples]}.

    scores, targets: [n], as for `metrics.rank`; enrol_speakers, test_speakers: int [n], columns of `counts`
    [resamples, speakers]. NaN where a resample has lost all trials of one class. The work grows with the
    number of corners of the ROC, of pairs of speakers and of trials, times that of resamples.
    """
    ranking = metrics.rank(scores, targets)
    corners, speakers = ranking.corners(), counts.shape[1]
    run = np.repeat(np.arange(len(corners)), np.diff(corners, append=len(ranking.scores)))
    first, second = (np.asarray(side)[ranking.order] for side in (enrol_speakers, test_speakers))
    costs = metrics.llr_costs(ranking.scores, ranking.targets)

    target = ranking.targets
    pair = np.minimum(first, second) * speakers + np.maximum(first, second)
    pairs, pair = np.unique(pair[~target], return_inverse=True)
    parts = []
    # Trials of one speaker, or of one pair of speakers, have one weight: it is spread over the ROC by one
    # product.
    for own, mask, size in ((first[target], target, speakers), (pair, ~target, len(pairs))):
        ones = np.ones(len(own))
        on_roc = csr_array((ones, (run[mask], own)), shape=(len(corners), size))
        parts.append((on_roc, np.bincount(own, costs[mask], size), np.bincount(own, minlength=size)))
    chunks = -(-len(counts) * (len(pairs) + len(corners)) // _CELLS)
    found = [
        _metrics(chunk, chunk[pairs // speakers] * chunk[pairs % speakers], *parts, priors)
        for chunk in (part.T.astype(np.float64) for part in np.array_split(counts, min(chunks, len(counts))))
    ]
    return {key: np.concatenate([chunk[key] for chunk in found]) for key in found[0]}


def _metrics(speaker_weights, pair_weights, target_parts, nontarget_parts, priors):
    """The metrics in a chunk of resamples; weights are [speakers or pairs, resamples]."""
    weights, mean_costs = [], []
    for held, (on_roc, costs, trials) in ((speaker_weights, target_parts), (pair_weights, nontarget_parts)):
        weights.append(on_roc @ held)
        with np.errstate(invalid="ignore"):
            mean_costs.append((costs @ held) / (trials @ held))
    rates = metrics.error_rates(*weights)
    return {
        "eer": metrics.eer_from_rates(*rates),
        **{metrics.dcf_key(prior): metrics.min_dcf_from_rates(*rates, prior) for prior in priors},
        "cllr": sum(mean_costs) / 2,
        "min_cllr": np.array(list(map(metrics.min_cllr_from_counts, weights[0].T, weights[1].T))),
    }


def identification(correct, speakers, counts):
    """Share of probes identified in every resample, float64 [resamples]; a probe counts as often as its
    speaker.

    correct: bool [probes]; speakers: int [probes], columns of `counts`. The enrolments stay as they are.
    NaN where no speaker with probes was drawn.
    """
    size = counts.shape[1]
    with np.errstate(invalid="ignore"):
        right, probes = np.bincount(speakers, correct, size), np.bincount(speakers, minlength=size)
        return (counts @ right) / (counts @ probes)


def smallest_detectable(differences, speakers):
    """The smallest difference of two models that the test would show in 80 % of test sets like this one.

    differences: [resamples], of the models' metrics, paired, NaN where there is none; speakers: how many were
    resampled. 2.8 standard errors, the sum of the normal quantiles of 97.5 % (a two-sided test at 5 %) and
    80 % (Bloom, "Minimum Detectable Effects", Evaluation Review, 1995), with the factor that makes up for the
    bootstrap's dividing by `speakers`, not by one less.
    """
    spread = np.nanstd(differences) * np.sqrt(speakers / (speakers - 1))
    return float((norm.ppf(0.975) + norm.ppf(0.8)) * spread)


def interval(estimate, values, speakers):
    """95 % interval (low, high) of a metric, or of a difference, from its value in every resample.

    estimate: over all trials; values: [resamples], NaN where there is none; speakers: how many were
    resampled.

    The quantiles of the values, taken as much further out as Student's t is than the normal distribution
    (expanded percentiles: Hesterberg, "What Teachers Should Know About the Bootstrap", The American
    Statistician, 2015), and moved against the bias that the resamples show, SHIFT times. Without that,
    minDCF holds the truth too seldom (a minimum over thresholds is too low on few trials, and lower again in
    a resample) and differences hold it too often. tests/evaluate/test_coverage.py measures how often the
    interval holds the truth: in 91 to 99 % of test sets, mostly 93 to 97 %. That of min_cllr, whose bias is
    larger than its resamples show, holds it in only 84 to 92 %.
    """
    values = values[~np.isnan(values)]
    tail = norm.cdf(np.sqrt(speakers / (speakers - 1)) * t.ppf(0.025, speakers - 1))
    low, high = np.quantile(values, (tail, 1 - tail)) - SHIFT * (values.mean() - estimate)
    return float(low), float(high)
