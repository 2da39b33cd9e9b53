import numpy as np
import pytest

from src.evaluate import metrics, nontargets, own_speakers, score_calibration, scores
from src.evaluate.own_speakers import Asked
from src.evaluate.trials import all_pairs
from src.runtime.errors import InputError
from tests.evaluate.simulation import embeddings, rows

ROWS = rows(20, 6)
TRIALS = all_pairs(ROWS, 1)
EMBEDDINGS = embeddings(np.random.default_rng(0), 20, 6, 0.7)[0]
SCORES = scores.cosine(EMBEDDINGS, TRIALS)
TAIL = nontargets.measure(EMBEDDINGS, ROWS)


def calibrated(**asked):
    return own_speakers.calibrated(SCORES, TRIALS, TAIL, Asked(**asked))


def test_the_threshold_is_the_one_that_is_asked_for():
    fitted, extrapolated = calibrated()
    assert fitted.threshold is None and fitted.accepted == fitted.threshold_eer and not extrapolated
    fitted, _ = calibrated(prior=0.01)
    assert fitted.llrs(fitted.accepted) == pytest.approx(np.log(99), abs=1e-3)
    fitted, extrapolated = calibrated(fmr=0.05)
    other = SCORES[~TRIALS.targets]
    assert np.mean(other >= fitted.accepted) == 0.05 and not extrapolated  # of 1,900
    fitted, extrapolated = calibrated(fmr=1e-5)
    assert extrapolated and fitted.accepted == pytest.approx(TAIL.threshold(1e-5, 1), abs=1e-6)
    with pytest.raises(InputError, match="too few even to extrapolate from"):
        own_speakers.calibrated(SCORES, TRIALS, None, Asked(fmr=1e-5))


def test_a_trial_is_calibrated_on_other_speakers():
    llrs = own_speakers.cross_validated(SCORES, TRIALS)
    fold = np.arange(20) % own_speakers.FOLDS
    sides = fold[TRIALS.enrol_speakers[TRIALS.enrol]], fold[TRIALS.test_speakers[TRIALS.test]]
    others = ~np.isin(sides, (1, 3)).any(axis=0)
    judged = ((sides[0] == 1) & (sides[1] == 3)) | ((sides[0] == 3) & (sides[1] == 1))
    expected = score_calibration.fit(SCORES[others], TRIALS.targets[others]).llrs(SCORES[judged])
    np.testing.assert_allclose(llrs[judged], expected)
    few = all_pairs(ROWS[:12], 1)
    assert own_speakers.cross_validated(scores.cosine(EMBEDDINGS[:12], few), few) is None


def test_figures_are_those_of_the_metrics_and_errors_are_counted():
    fitted, _ = calibrated(fmr=0.05)
    found = own_speakers.figures(ROWS, SCORES, TRIALS, fitted, Asked(fmr=0.05), resamples=100)
    assert found["eer"] == pytest.approx(metrics.eer(SCORES, TRIALS.targets), abs=1e-6)
    llrs = own_speakers.cross_validated(SCORES, TRIALS)
    assert found["cllr"] == pytest.approx(metrics.cllr(llrs, TRIALS.targets), abs=1e-6)
    assert all(
        found[f"{key}_ci"]["low"] <= found[key] <= found[f"{key}_ci"]["high"] for key in ("eer", "cllr", "min_cllr")
    )
    errors, accepted = found["at_threshold"], fitted.accepted <= SCORES
    assert (errors["false_matches"], errors["misses"]) == (95, np.count_nonzero(~accepted & TRIALS.targets))
    assert errors["fmr"] == pytest.approx(0.05) and errors["fmr_ci"]["low"] < 0.05 < errors["fmr_ci"]["high"]
    assert (found["trials"], found["target_trials"], found["speakers"], found["speakers_needed"]) == (2000, 100, 20, 20)


def test_how_many_speakers_are_needed_grows_as_the_rate_falls():
    """20 speakers make 1,900 non-target trials; 30,000 take four times as many speakers."""
    fitted, _ = calibrated(fmr=0.001)
    found = own_speakers.figures(ROWS, SCORES, TRIALS, fitted, Asked(fmr=0.001), resamples=100)
    assert found["speakers_needed"] == 78
    assert 78 * 77 * 5 >= 30_000 > 77 * 76 * 5
