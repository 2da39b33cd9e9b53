import time

import numpy as np
import pytest
from scipy.stats import norm

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
    found = bootstrap.detection(scores, targets, enrol, test, counts, priors=(0.01, 0.3))
    for row, count in enumerate(counts):
        times = np.where(targets, count[enrol], count[enrol] * count[test])
        for key, value in metrics.detection(scores.repeat(times), targets.repeat(times), (0.01, 0.3)).items():
            assert found[key][row] == pytest.approx(value, abs=1e-12), key


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
        return bootstrap.smallest_detectable(counts @ values / speakers, speakers)

    effect = np.mean([detectable(rng.normal(size=speakers)) for _ in range(100)])
    shown = []
    for _ in range(400):
        values = effect + rng.normal(size=speakers)
        low, high = bootstrap.interval(values.mean(), counts @ values / speakers, speakers)
        shown.append(low > 0 or high < 0)
    assert 0.74 < np.mean(shown) < 0.86
    assert bootstrap.smallest_detectable(np.array([np.nan, 1, 1]), 3) == 0


def test_resamples_draw_as_many_speakers_as_there_are():
    counts = bootstrap.resamples(7, 50, 3)
    assert counts.shape == (50, 7) and (counts.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(counts, bootstrap.resamples(7, 50, 3))
    assert (counts != bootstrap.resamples(7, 50, 4)).any()


def test_interval_of_a_normal_metric():
    values = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    low, high = bootstrap.interval(0.0, values, 10_000)
    assert (low, high) == pytest.approx((-1.96, 1.96), abs=0.01)
    narrow_low, narrow_high = bootstrap.interval(0.0, values, 10)
    assert narrow_high == pytest.approx(-narrow_low) and narrow_high == pytest.approx(2.385, abs=0.01)
    # The resamples lie 0.2 above the estimate: the interval moves down from them, SHIFT times that.
    assert bootstrap.interval(-0.2, values, 10_000)[0] == pytest.approx(low - 0.2 * bootstrap.SHIFT)


def test_interval_passes_over_nan():
    assert bootstrap.interval(0.5, np.array([np.nan, 0.5, 0.5]), 2) == (0.5, 0.5)


def test_speed():
    scores, targets, enrol, test = trials(0, 48, 40_000)
    start = time.process_time()
    bootstrap.detection(scores, targets, enrol, test, bootstrap.resamples(48, 1000, 0))
    assert time.process_time() - start < 10
