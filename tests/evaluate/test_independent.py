"""The metrics beside implementations that are not the project's: llreval (Brümmer's, of pyllr and BOSARIS) and
scikit-learn, on random and on degenerate scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llreval.bayes_error_rate import fast_Bayes_error_rate
from llreval.cllr import cllr, min_cllr
from llreval.pav_rocch import PAV, ROCCH
from scipy.special import logit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss, roc_curve

from src.evaluate import metrics

PRIORS = (0.01, 0.05, 0.5)


def normal(seed, size=3000, decimals=8):
    rng = np.random.default_rng(seed)
    targets = rng.random(size) < 0.1
    return (2 * rng.normal(size=size) + 4 * targets - 2).round(decimals), targets


CASES = {
    "random": normal(0),
    "many ties": normal(1, decimals=0),
    "perfect": (np.array([9.0, 8, -7, -8, -9]), np.array([1, 1, 0, 0, 0])),
    "inverted": (np.array([-9.0, -8, 7, 8, 9]), np.array([1, 1, 0, 0, 0])),
    "equal": (np.zeros(7), np.array([1, 0, 0, 1, 0, 0, 0])),
    "one of each": (np.array([1.0, 2.0]), np.array([0, 1])),
    "at the Bayes threshold": (np.array([logit(0.99)] * 4 + [0.0]), np.array([1, 0, 1, 0, 0])),
    "far apart": (np.array([700.0, -700, 650, -650]), np.array([1, 1, 0, 0])),
}


@st.composite
def trials(draw):
    size = draw(st.integers(2, 30))
    scores = draw(st.lists(st.sampled_from([-6.0, -1.0, 0.0, 0.5, 3.0, 4.6, 8.0]), min_size=size, max_size=size))
    targets = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(lambda t: 0 < sum(t) < size))
    return np.array(scores), np.array(targets)


def agree(scores, targets):
    measured, targets = metrics.detection(scores, targets, PRIORS), np.asarray(targets, dtype=int)
    pav = PAV(scores, targets)
    assert measured["cllr"] == pytest.approx(cllr(scores[targets == 1], scores[targets == 0]))
    with np.errstate(divide="ignore"):
        assert measured["min_cllr"] == pytest.approx(min_cllr(pav), abs=1e-9)
    lowest = ROCCH(pav).Bayes_error_rate(logit(np.array(PRIORS)))
    actual = fast_Bayes_error_rate(scores, targets, logit(np.array(PRIORS)))
    for prior, low, cost in zip(PRIORS, lowest, actual, strict=True):
        assert measured[metrics.dcf_key(prior)] == pytest.approx(low / min(prior, 1 - prior), abs=1e-9)
        assert measured[metrics.act_dcf_key(prior)] == pytest.approx(cost / min(prior, 1 - prior), abs=1e-9)
    fmr, hit, _ = roc_curve(targets, scores, drop_intermediate=False)
    for level in metrics.FMRS:
        assert measured[metrics.fnmr_key(level)] == pytest.approx(1 - hit[fmr <= level].max(), abs=1e-12)
    weights = np.where(targets, 0.5 / targets.sum(), 0.5 / (1 - targets).sum())
    posterior = IsotonicRegression(y_min=0, y_max=1).fit(scores, targets, weights).predict(scores)
    assert measured["min_cllr"] == pytest.approx(
        log_loss(targets, posterior, sample_weight=weights) / np.log(2), abs=1e-9
    )


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_llreval_and_scikit_learn(case):
    agree(*CASES[case])


@settings(deadline=None)
@given(trials())
def test_agrees_on_few_scores_with_ties(case):
    agree(*case)


def test_pooled_adjacent_violators_are_llrevals():
    """The costs of both PAVs agree block by block, not only in sum."""
    scores, targets = CASES["many ties"]
    ranking = metrics.rank(scores, targets)
    for end in range(2, len(ranking.starts) + 1):
        counts = [part[:end] for part in ranking.counts(ranking.starts)]
        if all(part.any() for part in counts):
            below = scores <= ranking.scores[ranking.starts[end - 1]]
            with np.errstate(divide="ignore"):
                expected = min_cllr(PAV(scores[below], targets[below].astype(int)))
            assert metrics.min_cllr_from_counts(*counts) == pytest.approx(expected, abs=1e-9)
