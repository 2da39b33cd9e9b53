from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from src.evaluate import metrics, score_calibration
from src.runtime.errors import InputError
from tests.evaluate.simulation import rows
from tests.evaluate.test_metrics import normal_trials


@pytest.mark.parametrize("size", [12, 300])
def test_agrees_with_scikit_learns_logistic_regression(size):
    scores, targets = normal_trials(1, size, share=0.25)
    t, n = np.count_nonzero(targets), np.count_nonzero(~targets)
    # A trial with the label 0.9 is 0.9 trials of one class and 0.1 of the other.
    label = np.where(targets, (t + 1) / (t + 2), 1 / (n + 2))
    weight = np.where(targets, 1 / t, 1 / n) * t * n
    model = LogisticRegression(C=1e6, tol=1e-10, max_iter=10_000).fit(
        np.tile(scores, 2)[:, None], np.repeat([1, 0], size), np.concatenate([weight * label, weight * (1 - label)])
    )
    found = score_calibration.fit(scores, targets)
    assert (found.scale, found.offset) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), abs=1e-3)


def test_no_affine_map_has_a_much_lower_cllr():
    scores, targets = normal_trials(0, 20_000, shift=2.0)
    found = score_calibration.fit(0.05 * scores + 0.3, targets)
    assert found.llrs(0.05 * scores + 0.3) == pytest.approx(2 * scores - 2, abs=0.4)  # N(2, 1) against N(0, 1)
    best = metrics.cllr(found.llrs(0.05 * scores + 0.3), targets)
    for change in (
        {"scale": 1.05 * found.scale},
        {"scale": 0.95 * found.scale},
        {"offset": found.offset + 0.1},
        {"offset": found.offset - 0.1},
    ):
        assert metrics.cllr(replace(found, **change).llrs(0.05 * scores + 0.3), targets) > best


@pytest.mark.parametrize(
    ("scores", "threshold", "sign"),
    [
        ([0.9, 0.8, 0.1, 0.2], 0.5, 1),  # apart
        ([0.1, 0.2, 0.9, 0.8], 0.5, -1),  # apart, the wrong way
        ([0.3, 0.3, 0.3, 0.3], 0.3, 0),
    ],
)
def test_extremes_have_a_calibration(scores, threshold, sign):
    found = score_calibration.fit(np.array(scores), np.array([True, True, False, False]))
    assert np.isfinite([found.scale, found.offset]).all() and np.sign(found.scale) == sign
    assert metrics.cllr(found.llrs(np.array(scores)), np.array([True, True, False, False])) <= 1
    assert sign < 0 or found.threshold_eer == pytest.approx(threshold)


def test_one_class_is_refused():
    with pytest.raises(InputError, match="no target trials"):
        score_calibration.fit(np.array([0.1, 0.2]), np.array([False, False]))


def test_rows_and_trials_are_those_of_the_split():
    manifest = [replace(row, split="validation" if row.speaker < "s003" else "test") for row in rows(5, 3)]
    chosen, trials = score_calibration.rows_and_trials(manifest, 2)
    assert chosen == manifest[:9] and len(trials) == 9 and trials.targets.sum() == 3
