import time

import numpy as np
import pytest
import scipy.stats
from scipy.stats import norm, t

from src.evaluate import bootstrap, metrics


def trials(seed, speakers, size):
    """Scores with ties of random trials between speakers."""
    rng = np.random.default_rng(seed)
    enrol, test = rng.integers(speakers, size=(2, size))
    test = np.where(rng.random(size) < 0.2, enrol, test)
    return (rng.normal(size=size) + 2 * (enrol == test)).round(1), enrol == test, enrol, test


@pytest.mark.parametrize("cells", [1 << 22, 50])
def test_resample_is_what_repeating_its_trials_gives(monkeypatch, cells):
    monkeypatch.setattr(bootstrap, "_CELLS", cells)
    scores, targets, enrol, test = trials(0, 6, 120)
    counts = np.vstack([np.ones(6, dtype=int), bootstrap.resamples(6, 40, 0)])
    llrs = 2 * scores - 1
    found = bootstrap.detection(scores, targets, enrol, test, counts, (0.01, 0.3), llrs)
    for row, count in enumerate(counts):
        times = np.where(targets, count[enrol], count[enrol] * count[test])
        expected = metrics.detection(scores.repeat(times), targets.repeat(times), (0.01, 0.3), llrs.repeat(times))
        for key, value in expected.items():
            assert found[key][row] == pytest.approx(value, abs=1e-12), key


def test_resamples_are_measured_at_as_many_corners_as_matter(monkeypatch):
    """A step of the ROC that is left out moves a metric by far less than resamples differ."""
    rng = np.random.default_rng(3)
    enrol, test = rng.integers(60, size=(2, 40_000))
    test = np.where(rng.random(len(test)) < 0.3, enrol, test)
    voices = rng.normal(size=60)
    scores = rng.normal(size=len(test)) + voices[enrol] * voices[test] / 3 + 2.5 * (enrol == test)
    counts = bootstrap.resamples(60, 60, 0)
    assert len(metrics.rank(scores, enrol == test).corners()) > 4000
    whole = bootstrap.detection(scores, enrol == test, enrol, test, counts)
    monkeypatch.setattr(bootstrap, "CORNERS", 2500)
    fewer = bootstrap.detection(scores, enrol == test, enrol, test, counts)
    for key, values in whole.items():
        assert np.sqrt(np.mean((fewer[key] - values) ** 2)) < 0.1 * values.std(), key
    assert any((fewer[key] != whole[key]).any() for key in whole)


def test_resample_without_one_class_is_nan():
    scores, targets, enrol, test = trials(0, 3, 60)
    found = bootstrap.detection(scores, targets, enrol, test, np.array([[3, 0, 0], [1, 1, 1]]))
    assert all(np.isnan(values[0]) and np.isfinite(values[1]) for values in found.values())


def test_identification():
    correct, speakers = np.array([True, True, False, True]), np.array([0, 0, 1, 2])
    counts = np.array([[1, 1, 1, 0], [2, 1, 0, 0], [0, 0, 0, 3]])
    assert bootstrap.identification(correct, speakers, counts)[:2].tolist() == [3 / 4, 4 / 5]
    assert np.isnan(bootstrap.identification(correct, speakers, counts)[2])


def test_smallest_detectable_is_shown_in_four_of_five_test_sets():
    rng, speakers = np.random.default_rng(0), 40
    counts = bootstrap.resamples(speakers, 400, 0)

    def detectable(values):
        return bootstrap.smallest_detectable(counts @ values / speakers, counts)

    effect = np.mean([detectable(rng.normal(size=speakers)) for _ in range(100)])
    shown = []
    for _ in range(400):
        values = effect + rng.normal(size=speakers)
        low, high = bootstrap.difference_interval(values.mean(), counts @ values / speakers, counts)
        shown.append(low > 0 or high < 0)
    assert 0.74 < np.mean(shown) < 0.86
    assert bootstrap.smallest_detectable(np.array([np.nan, 1, 1]), bootstrap.resamples(3, 3, 0)) == 0


def test_resamples_draw_as_many_speakers_as_there_are():
    counts = bootstrap.resamples(7, 50, 3)
    assert counts.shape == (50, 7) and (counts.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(counts, bootstrap.resamples(7, 50, 3))
    assert (counts != bootstrap.resamples(7, 50, 4)).any()


def means(own, number=20_000):
    """The mean over speakers, and in every resample, of what is each one's own; the resamples."""
    counts = bootstrap.resamples(len(own), number, 0)
    return own.mean(), counts @ own / len(own), counts


@pytest.mark.parametrize("speakers", [8, 200])
def test_interval_of_a_mean_is_students(speakers):
    own = norm.ppf((np.arange(speakers) + 0.5) / speakers)
    low, high = t.interval(0.95, speakers - 1, 0, own.std(ddof=1) / np.sqrt(speakers))
    assert bootstrap.difference_interval(*means(own)) == pytest.approx((low, high), rel=0.02)
    # Of so few speakers the resamples have no tails as long as the normal distribution's.
    assert bootstrap.interval(*means(own)) == pytest.approx((low, high), rel=0.06 if speakers == 8 else 0.025)


def test_a_biased_difference_moves_the_centre():
    estimate, values, counts = means(np.random.default_rng(1).normal(size=40))
    low, high = bootstrap.difference_interval(estimate, values, counts)
    moved = bootstrap.difference_interval(estimate, values + 0.1, counts)
    assert moved == pytest.approx((low + 0.1, high + 0.1)) and moved[0] < estimate


@pytest.mark.parametrize("interval", [bootstrap.interval, bootstrap.difference_interval])
def test_fewer_degrees_of_freedom_where_few_speakers_decide(interval):
    even, odd = np.tile([1.0, -1.0], 20), np.r_[np.sqrt(20), -np.sqrt(20), np.zeros(38)]  # of one variance
    (low, high), (odd_low, odd_high) = interval(*means(even)), interval(*means(odd))
    assert odd_high - odd_low > 1.25 * (high - low)


def test_interval_of_a_skewed_metric_is_bca():
    own = np.random.default_rng(1).exponential(size=400)
    expected = scipy.stats.bootstrap(
        (own,), np.mean, n_resamples=20_000, method="BCa", random_state=0
    ).confidence_interval
    low, high = bootstrap.interval(*means(own))
    assert high - own.mean() > 1.1 * (own.mean() - low)
    # Student's t goes 1 to 2 % further out.
    assert own.mean() - low == pytest.approx(1.015 * (own.mean() - expected.low), rel=0.025)
    assert high - own.mean() == pytest.approx(1.015 * (expected.high - own.mean()), rel=0.025)


def test_interval_is_moved_against_the_bias():
    estimate, values, counts = means(np.random.default_rng(1).normal(size=100))
    low, high = bootstrap.interval(estimate, values, counts)
    biased = bootstrap.interval(estimate, values - 0.05, counts)
    assert biased[0] > low + 0.01 and biased[1] > high + 0.01


def test_interval_of_a_cost_is_students_on_the_logarithm():
    own = np.random.default_rng(1).exponential(size=200)
    estimate, values, counts = means(own)
    low, high = bootstrap.cost_interval(estimate, values, counts, 1)
    assert low * high == pytest.approx(estimate**2)
    assert np.log(high / estimate) == pytest.approx(1.97 * own.std(ddof=1) / np.sqrt(200) / estimate, rel=0.08)
    wider = bootstrap.cost_interval(estimate, values, counts, 1.5)
    assert np.log(wider[1] / estimate) == pytest.approx(1.5 * np.log(high / estimate))
    moved = bootstrap.cost_interval(estimate, values - 0.01, counts, 1, shift=2)
    assert moved[1] > high and bootstrap.cost_interval(0, 0 * values, counts, 1) == (0, 0)


@pytest.mark.slow
def test_interval_of_a_rate_stays_between_0_and_1():
    own = np.zeros(30)
    own[:2] = 1
    low, high = bootstrap.rate_interval(*means(own))
    assert 0 < low < 2 / 30 < high < 1 and high - 2 / 30 > 2 / 30 - low
    assert bootstrap.rate_interval(*means(np.zeros(30))) == (0, 0)


def test_noise_of_single_trials_counts_once_for_both_speakers():
    """Trials between 20 speakers that nothing but their own noise tells apart: a mean over 190 independent numbers."""
    rng, (first, second) = np.random.default_rng(0), np.triu_indices(20, 1)
    counts = bootstrap.resamples(20, 2000, 0)
    weights = counts[:, first] * counts[:, second]
    plain, by_pairs = [], []
    for _ in range(40):
        noise = rng.normal(size=190)
        values = weights @ noise / weights.sum(axis=1)
        plain.append(bootstrap.standard_error(values, counts))
        by_pairs.append(bootstrap._error_by_pairs(values, counts))
    truth = 1 / np.sqrt(190)
    assert np.mean(np.square(plain)) == pytest.approx(2 * truth**2, rel=0.2)
    assert np.mean(np.square(by_pairs)) == pytest.approx(0.75 * np.mean(np.square(plain)), rel=0.02)
    # Nothing is taken off what is the speakers' own.
    own = rng.normal(size=20)
    values = counts @ own / 20
    assert bootstrap._error_by_pairs(values, counts) == pytest.approx(
        bootstrap.standard_error(values, counts), rel=0.05
    )


def test_models_that_get_the_same_probes_right_may_still_differ():
    """The rule of three: without a change among n probes, 3 in n may change."""
    speakers = np.repeat(np.arange(48), 9)
    low, high = bootstrap.outcome_difference_interval(np.zeros(432), speakers)
    assert high == -low == pytest.approx(2.84 / 432, rel=0.01)
    assert bootstrap.outcome_difference_interval(np.zeros(432), speakers, step=0.25) == pytest.approx(
        (low / 4, high / 4)
    )
    assert bootstrap.outcome_difference_interval(np.array([1.0, 0]), np.array([3, 3]))[1] == 1


def test_interval_of_many_changes_is_students():
    rng = np.random.default_rng(0)
    own = rng.normal(0, 0.1, size=40)
    low, high = bootstrap.outcome_difference_interval(own.repeat(50), np.arange(40).repeat(50))
    assert (low, high) == pytest.approx(t.interval(0.95, 39, own.mean(), own.std(ddof=1) / np.sqrt(40)), rel=0.01)


@pytest.mark.parametrize(("losses", "gains"), [(2, 0), (3, 0), (6, 0), (12, 0), (2, 1), (6, 3), (20, 15)])
def test_difference_of_outcomes_is_held_however_few_change(losses, gains):
    rng, speakers = np.random.default_rng(0), np.repeat(np.arange(48), 9)
    held = []
    for _ in range(2000):
        changes = (rng.random(432) < gains / 432) * 1.0 - (rng.random(432) < losses / 432)
        low, high = bootstrap.outcome_difference_interval(changes, speakers)
        held.append(low <= (gains - losses) / 432 <= high)
    assert np.mean(held) > 0.93


def test_standard_error_leaves_out_what_no_speaker_explains():
    """Noise of each resample by itself, as from a metric that steps, and much of it."""
    own = np.random.default_rng(2).normal(size=50)
    _estimate, values, counts = means(own, 2000)
    noisy = values + values.std() * np.random.default_rng(3).normal(size=len(values))
    expected = own.std(ddof=1) / np.sqrt(50)
    assert bootstrap.standard_error(values, counts) == pytest.approx(expected, rel=0.1)
    assert bootstrap.standard_error(noisy, counts) == pytest.approx(expected, rel=0.1)
    assert noisy.std() > 1.35 * expected
    noise = noisy - values  # no speaker explains any of it
    assert bootstrap.standard_error(noise, counts) == pytest.approx(noise.std() / 3, rel=0.02)


@pytest.mark.parametrize("interval", [bootstrap.interval, bootstrap.difference_interval])
def test_interval_passes_over_nan_and_is_a_point_where_nothing_varies(interval):
    counts = bootstrap.resamples(3, 3, 0)
    assert interval(0.5, np.array([np.nan, 0.5, 0.5]), counts) == (0.5, 0.5)


@pytest.mark.parametrize("interval", [bootstrap.interval, bootstrap.difference_interval])
@pytest.mark.parametrize("speakers", [2, 3, 30])
def test_interval_holds_the_estimate_wherever_the_resamples_are(interval, speakers):
    estimate, values, counts = means(np.eye(speakers)[0], 500)
    for moved in (-3, 0, 3):
        low, high = interval(estimate, values + moved, counts)
        assert np.isfinite([low, high]).all() and low <= estimate <= high


def test_speed():
    scores, targets, enrol, test = trials(0, 48, 40_000)
    start = time.process_time()
    bootstrap.detection(scores, targets, enrol, test, bootstrap.resamples(48, 1000, 0))
    assert time.process_time() - start < 3
