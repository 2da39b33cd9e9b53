from dataclasses import replace

import numpy as np
import pytest

from src.evaluate import normalise, score_calibration, scores, test_set
from src.evaluate.evaluation import evaluate
from src.evaluate.extract import embed
from src.evaluate.trials import all_pairs
from src.runtime import calibration
from src.runtime.errors import InputError
from tests.evaluate.simulation import embeddings, rows
from tests.evaluate.test_accuracy import CONFIG

TRIALS = all_pairs(rows(4, 3), 2)
EMBEDDINGS = embeddings(np.random.default_rng(0), 4, 3, 0.5)[0]
COHORT_ROWS = [f"c{s}" for s in range(6) for _ in range(2)]
COHORT = normalise.speaker_models(embeddings(np.random.default_rng(1), 6, 2, 0.5)[0], COHORT_ROWS)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("top", [None, 3])
def test_s_norm_is_its_definition(top):
    values = scores.cosine(EMBEDDINGS, TRIALS)
    found = normalise.s_norm(values, EMBEDDINGS, TRIALS, COHORT, top)
    unit = [embedding / np.linalg.norm(embedding) for embedding in EMBEDDINGS]
    for trial, value in enumerate(values):
        terms = []
        for rows_ in (TRIALS.enrol_rows[TRIALS.enrol[trial]], [TRIALS.test_rows[TRIALS.test[trial]]]):
            against = sorted((cosine(sum(unit[row] for row in rows_), model) for model in COHORT), reverse=True)
            against = against[:top]
            mean = sum(against) / len(against)
            std = (sum((own - mean) ** 2 for own in against) / len(against)) ** 0.5
            terms.append((value - mean) / std)
        assert found[trial] == pytest.approx(sum(terms) / 2, abs=1e-7)


def test_speaker_models_are_means_of_directions_by_name():
    found = normalise.speaker_models([[0, 5.0], [3, 0], [1, 0]], ["b", "a", "b"])
    np.testing.assert_allclose(found, [[1, 0], [0.5**0.5, 0.5**0.5]])


def test_a_cohort_that_tells_nothing_is_refused():
    with pytest.raises(InputError, match="are all the same"):
        normalise.s_norm(scores.cosine(EMBEDDINGS, TRIALS), EMBEDDINGS, TRIALS, COHORT[[0, 0]])


def with_cohort(project):
    """The last three speakers of the split test as cohort."""
    return [replace(row, split="finetune") if "s2" < row.speaker < "s6" else row for row in project]


def configured(**changes):
    return CONFIG.model_copy(update={"evaluate": CONFIG.evaluate.model_copy(update=changes)})


@pytest.mark.parametrize(("name", "top"), [("s-norm", None), ("as-norm", 2)])
def test_evaluate_writes_normalised_scores(project, name, top):
    manifest = with_cohort(project)
    config = configured(normalisation=name, cohort_top=2)
    evaluate("a.onnx", "fp32", manifest, config)
    test = test_set.make_test(manifest[:12], 1)
    written = scores.read_scores("metrics/scores/fp32.csv", test.verification)
    by_hand = embed("a.onnx", project)
    cohort = normalise.speaker_models(by_hand[12:24], [row.speaker for row in project[12:24]])
    plain = scores.cosine(by_hand[:12], test.verification)
    expected = normalise.s_norm(plain, by_hand[:12], test.verification, cohort, top)
    np.testing.assert_array_equal(written, expected)
    # So are those that they are calibrated with.
    validation = all_pairs(manifest[24:], 1)
    plain_validation = scores.cosine(by_hand[24:], validation)
    normalised = normalise.s_norm(plain_validation, by_hand[24:], validation, cohort, top)
    path = "metrics/evaluation/fp32/calibration.json"
    fitted = calibration.read(path)
    assert replace(fitted, nontargets=None, cohort=None) == replace(
        score_calibration.fit(normalised, validation.targets), normalisation=name
    )
    voices, highest = calibration.cohort(fitted, path)
    np.testing.assert_allclose(voices, cohort, atol=1e-6)
    assert highest == top
    # Without normalisation the cohort has no say.
    evaluate("a.onnx", "plain", manifest, CONFIG)
    np.testing.assert_array_equal(scores.read_scores("metrics/scores/plain.csv", test.verification), plain)


def test_unusable_cohorts_are_refused(project):
    rows_ = with_cohort(project)
    with pytest.raises(InputError, match="s5 is in the cohort .* and in the test split"):
        normalise.cohort_rows([*rows_, project[23]])
    with pytest.raises(InputError, match="cohort_top: 4: the cohort .* has 3 speakers"):
        evaluate("a.onnx", "fp32", rows_, configured(normalisation="as-norm", cohort_top=4))
    with pytest.raises(InputError, match="has 0 speakers; two are needed"):
        normalise.cohort_rows(project)
