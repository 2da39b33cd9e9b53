"""What `evaluate` and its figures say, where a figure of the right size with another meaning would look as good."""

import numpy as np
import pytest

from src.evaluate import accuracy, score_calibration, scores, test_set
from src.evaluate.evaluation import evaluate
from src.evaluate.extract import embed
from src.evaluate.result import score_test
from src.evaluate.trials import all_pairs
from tests.evaluate.test_accuracy import CONFIG, FITTED, models, pairs, with_list


def test_a_trial_list_is_calibrated_by_single_enrolments_whatever_enrolments_says(project, tmp_path):
    embeddings = embed("a.onnx", project[24:])

    def fitted(enrolments):
        trials = all_pairs(project[24:], enrolments)
        calibration = score_calibration.fit(scores.cosine(embeddings, trials), trials.targets)
        return {"scale": calibration.scale, "offset": calibration.offset}

    several = CONFIG.evaluate.model_copy(update={"enrolments": 2})
    for config, enrolments in ((CONFIG, 2), (with_list(tmp_path / "list.txt", pairs(project[:24])), 1)):
        config = config.model_copy(update={"evaluate": several})
        assert evaluate("a.onnx", "fp32", project, config)["calibration"] == fitted(enrolments)


def test_a_worse_model_has_higher_errors_and_fewer_identified():
    rows, (first, _) = models(30, 6)
    worse = first + 0.6 * np.random.default_rng(5).normal(size=first.shape)
    test = test_set.make_test(rows, 1)
    reference, result = (score_test(own, test, FITTED) for own in (first, worse))
    difference = accuracy.figures(test, result, 200, 0, reference)["difference"]
    assert difference["top1_accuracy"]["high"] < 0
    for key in set(accuracy.KEYS) - {"top1_accuracy"}:
        assert 0 < difference[key]["low"] < difference[key]["value"] < difference[key]["high"], key


@pytest.mark.parametrize("seed", range(3))
def test_minimum_cllr_of_a_guesser_is_at_most_1(seed):
    rows, _ = models(12, 3)
    test = test_set.make_test(rows, 1)
    guess = score_test(np.random.default_rng(seed).normal(size=(36, 24)), test, FITTED)
    assert accuracy.figures(test, guess, 200, 0)["min_cllr_ci"]["high"] == 1
