import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_curve

from src.evaluate import metrics
from src.runtime.errors import InputError


@st.composite
def trials(draw):
    """Few distinct scores, so that ties within and between the classes are common; both classes present."""
    values = draw(st.sampled_from([[0.0], [-1.0, 1.0], [0.0, 0.25, 0.5, 1.0], list(np.linspace(-5, 5, 40))]))
    size = draw(st.integers(2, 40))
    scores = draw(st.lists(st.sampled_from(values), min_size=size, max_size=size))
    targets = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(lambda t: 0 < sum(t) < size))
    return np.array(scores), np.array(targets)


def brute_points(scores, targets):
    """(p_miss, p_fa) when accepting at or above each score, and when accepting nothing: by the definition."""
    return [
        (np.mean(scores[targets] < threshold), np.mean(scores[~targets] >= threshold))
        for threshold in [*sorted(set(scores)), np.inf]
    ]


def brute_eer(points):
    for (miss, fa), (next_miss, next_fa) in itertools.pairwise(points):
        if next_miss >= next_fa:
            share = (fa - miss) / ((fa - miss) + (next_miss - next_fa))
            return miss + share * (next_miss - miss)


def normal_trials(seed, size, shift=2.0, share=0.1, decimals=8):
    rng = np.random.default_rng(seed)
    targets = rng.random(size) < share
    return (rng.normal(size=size) + shift * targets).round(decimals), targets


@settings(deadline=None)
@given(trials())
def test_agrees_with_the_definition(case):
    scores, targets = case
    points = brute_points(scores, targets)
    found = metrics.detection(scores, targets, priors=(0.01, 0.05, 0.5, 0.9))
    assert found["eer"] == pytest.approx(brute_eer(points), abs=1e-12)
    assert metrics.eer(scores, targets) == found["eer"]
    for prior in (0.01, 0.05, 0.5, 0.9):
        cost = min(prior * miss + (1 - prior) * fa for miss, fa in points) / min(prior, 1 - prior)
        assert found[f"min_dcf_{prior}"] == pytest.approx(cost, abs=1e-12)
    bits = np.log2(1 + np.exp(-scores[targets])).mean(), np.log2(1 + np.exp(scores[~targets])).mean()
    assert found["cllr"] == pytest.approx(np.mean(bits))


@settings(deadline=None)
@given(trials())
def test_agrees_with_scikit_learn(case):
    scores, targets = case
    fa, hit, thresholds = roc_curve(targets, scores, drop_intermediate=False)
    found_thresholds, found_fa, miss = metrics.det_points(metrics.rank(scores, targets))
    kept = np.isin(thresholds, found_thresholds)
    np.testing.assert_allclose(found_fa[::-1], fa[kept])
    np.testing.assert_allclose(1 - miss[::-1], hit[kept])
    # The same area under it: no corner was left out.
    assert np.trapezoid(1 - miss[::-1], found_fa[::-1]) == pytest.approx(np.trapezoid(hit, fa))
    expected = brentq(lambda x: 1 - x - interp1d(fa, hit)(x), 0, 1)
    assert metrics.eer(scores, targets) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(trials())
def test_min_cllr_agrees_with_scikit_learns_isotonic_regression(case):
    scores, targets = case
    weights = np.where(targets, 0.5 / targets.sum(), 0.5 / (~targets).sum())
    posterior = IsotonicRegression(y_min=0, y_max=1).fit(scores, targets, weights).predict(scores)
    with np.errstate(divide="ignore"):
        expected = -(np.log2(posterior[targets]).mean() + np.log2(1 - posterior[~targets]).mean()) / 2
    assert metrics.detection(scores, targets)["min_cllr"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_speechbrain(seed):
    from src.encoder.load import prepare_speechbrain

    prepare_speechbrain()
    import torch
    from speechbrain.utils.metric_stats import EER, minDCF

    scores, targets = normal_trials(seed, 600, decimals=2)
    classes = [torch.tensor(scores[mask]) for mask in (targets, ~targets)]
    found = metrics.detection(scores, targets)
    # SpeechBrain gives the mean of the two rates at the nearest point; the EER lies between them.
    assert found["eer"] == pytest.approx(EER(*classes)[0], abs=0.5 / targets.sum())
    for prior in (0.01, 0.05):
        expected = minDCF(*classes, p_target=prior)[0] / prior  # theirs is not normalised
        assert found[f"min_dcf_{prior}"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("scores", "eer", "cost", "min_cllr", "cllr"),
    [
        ([300, 400, -100, -200], 0, 0, 0, 0),  # perfect, and as likelihood ratios too
        ([-100, -200, 300, 400], 1, 1, 1, 250 / np.log(2)),  # inverted
        ([0, 0, 0, 0], 0.5, 1, 1, 1),  # equal
    ],
)
def test_extremes(scores, eer, cost, min_cllr, cllr):
    found = metrics.detection(scores, [1, 1, 0, 0])
    keys = ("eer", "min_dcf_0.01", "min_cllr", "cllr")
    assert [found[key] for key in keys] == pytest.approx([eer, cost, min_cllr, cllr])


def test_cllr_and_actual_costs_are_of_the_llrs_and_nothing_else_is():
    scores, targets = normal_trials(0, 500)
    calibrated, plain = metrics.detection(scores, targets, llrs=2 * scores - 2), metrics.detection(scores, targets)
    assert calibrated["cllr"] == pytest.approx(metrics.cllr(2 * scores - 2, targets))
    assert plain["cllr"] == pytest.approx(metrics.cllr(scores, targets))
    for prior in metrics.PRIORS:
        accepted = 2 * scores - 2 >= np.log((1 - prior) / prior)
        cost = prior * np.mean(~accepted[targets]) + (1 - prior) * np.mean(accepted[~targets])
        assert calibrated[f"act_dcf_{prior}"] == pytest.approx(cost / prior)
        assert calibrated[f"act_dcf_{prior}"] >= calibrated[f"min_dcf_{prior}"]
    same = set(plain) - {"cllr", "act_dcf_0.01", "act_dcf_0.05"}
    assert len(same) == 6 and all(calibrated[key] == plain[key] for key in same)


def test_fnmr_is_the_lowest_at_which_few_enough_non_targets_match():
    targets = np.repeat([True, False], [4, 1000])
    scores = np.concatenate([[990.5, 989.5, 998.5, 500], np.arange(1000)])  # above 989 are ten, above 998 is one
    found = metrics.detection(scores, targets)
    assert (found["fnmr_at_fmr_0.01"], found["fnmr_at_fmr_0.001"]) == (0.25, 0.75)
    assert [metrics.enough_for(fmr) for fmr in (0.01, 0.001)] == [3000, 30_000]


@settings(deadline=None)
@given(trials())
def test_threshold_is_where_the_rates_meet(case):
    scores, targets = case
    ranking = metrics.rank(scores, targets)
    threshold, eer = metrics.eer_threshold(ranking), metrics.eer(scores, targets)
    above = np.mean(scores[targets] < threshold), np.mean(scores[~targets] >= threshold)
    below = np.mean(scores[targets] <= threshold), np.mean(scores[~targets] > threshold)
    assert min(above[0], below[0]) - 1e-12 <= eer <= max(above[0], below[0]) + 1e-12
    assert min(above[1], below[1]) - 1e-12 <= eer <= max(above[1], below[1]) + 1e-12


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([1, 2], [1, 1], "no non-target trials among 2"),
        ([1, 2], [0, 0], "no target trials among 2"),
        ([], [], "no target trials among 0"),
        ([1, np.nan, 3], [1, 0, 1], "1 of 3 are NaN or infinite"),
        ([1, np.inf], [1, 0], "NaN or infinite"),
        ([1, 2, 3], [1, 0], "one length"),
        ([[1, 2]], [[1, 0]], "two lists"),
        ([1, 2], [1, 2], "only 0 and 1"),
    ],
)
def test_bad_input(scores, targets, message):
    with pytest.raises(InputError, match=message):
        metrics.detection(scores, targets)


@pytest.mark.parametrize("prior", [0, 1, -0.1])
def test_bad_prior(prior):
    with pytest.raises(InputError, match="prior"):
        metrics.detection([1, 2], [0, 1], priors=(prior,))


def test_ranks():
    scores = np.array([[0.9, 0.1, 0.5, 0.2], [0.3, 0.8, 0.5, 0.9], [0.2, 0.9, 0.1, 0.3]])
    ranks = metrics.identification_ranks(scores, np.array([0, 1, 0, 0]))
    assert ranks.tolist() == [1, 2, 2, 3]  # the third is a tie, which counts against it
    with pytest.raises(InputError):
        metrics.identification_ranks(np.array([[np.nan]]), np.array([0]))


def test_half_a_million_trials_take_less_than_a_second():
    scores, targets = normal_trials(0, 550_000, share=0.05)
    start = time.process_time()
    metrics.detection(scores, targets)
    assert time.process_time() - start < 1


def test_a_spread_of_points_keeps_the_ends_and_is_even_along_the_curve():
    rng = np.random.default_rng(0)
    scores, targets = np.r_[rng.normal(0, 1, 4000), rng.normal(2, 1, 4000)], np.repeat([False, True], 4000)
    _, p_fa, p_miss = metrics.det_points(metrics.rank(scores, targets))
    places = metrics.spread(p_miss, p_fa, 300)
    assert 150 < len(places) <= 300 < len(p_fa)
    assert places[0] == 0 and places[-1] == len(p_fa) - 1
    # Points of rates around 10 % are not left out for the many around 50 %.
    near = p_fa[places][(p_fa[places] > 0.05) & (p_fa[places] < 0.15)]
    assert len(near) > 10 and -np.diff(near).min() < 0.01
    assert metrics.spread(p_miss, p_fa, len(p_fa)).tolist() == list(range(len(p_fa)))
