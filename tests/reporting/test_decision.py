"""Validation speakers decide, the test confirms or does not."""

import contextlib
from dataclasses import replace

import pytest

from src.evaluate.accuracy import KEYS
from src.reporting import decision
from src.reporting.results import load
from tests.reporting.conftest import write

OPEN = {"value": 0.001, "low": -0.002, "high": 0.003}
WORSE = {"value": 0.01, "low": 0.004, "high": 0.02}
LOSS_OF_EER = {"eer": WORSE}
LOSS_OF_TOP1 = {"top1_accuracy": {"value": -0.02, "low": -0.03, "high": -0.01}}
INFERIOR = {"validation": {"verdict": "inferior"}}
UNDECIDED = {"validation": {"verdict": "undecided"}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Results of a run."""
    with contextlib.chdir(tmp_path_factory.mktemp("run")):
        return load(write())


def altered(results, **models):
    """Results with other figures; models: {name: {key of its accuracy or cost: value}}. A difference not given is OPEN,
    and a model passes on validation speakers unless its `validation` says otherwise."""
    changed = {}
    for name, values in models.items():
        model, values = results.models[name], {"eer": 0.05, "noninferior": 0, **values}
        difference = dict.fromkeys(KEYS, OPEN) | values.get("difference", {})
        validation = model.accuracy["validation"] | {"verdict": "passes", "speakers_needed": 30}
        validation |= {"difference": {"eer": OPEN, "top1_accuracy": OPEN}} | values.get("validation", {})
        changes = {"difference": difference, "validation": validation}
        changed[name] = replace(model, accuracy=model.accuracy | values | changes, cost=model.cost | values)
    return replace(results, models=results.models | changed)


@pytest.mark.parametrize(
    "key, value, low, high, effect",
    [
        ("eer", 0.01, 0.004, 0.02, "worse"),
        ("eer", -0.01, -0.02, -0.004, "better"),
        ("eer", 0.01, 0.0, 0.02, "open"),
        ("top1_accuracy", -0.01, -0.02, -0.004, "worse"),
        ("top1_accuracy", 0.01, 0.004, 0.02, "better"),
        ("top1_accuracy", -0.01, -0.03, 0.01, "open"),
        ("min_dcf_0.01", 0.0, 0.0, 0.0, "same"),
    ],
)
def test_effect(key, value, low, high, effect):
    assert decision.effect(key, {"difference": {key: {"value": value, "low": low, "high": high}}}) == effect


@pytest.mark.parametrize(
    "ptq, qat, chosen, undecided",
    [
        ({}, {}, "ptq", []),
        ({}, {"gmacs": 1.7}, "qat", []),  # the fewest operations
        ({"int8_mac_share": 0.9}, {"int8_mac_share": 0.99}, "qat", []),  # of these, the most in INT8
        ({"size_mb": 2.0}, {"size_mb": 1.0}, "qat", []),  # of these, the smaller file
        (INFERIOR, {"gmacs": 9.0}, "qat", []),
        (UNDECIDED, {"gmacs": 9.0}, "qat", ["ptq"]),
        ({}, {"gmacs": 1.7, **UNDECIDED}, "ptq", ["qat"]),
        ({}, {"gmacs": 9.0, **UNDECIDED}, "ptq", []),  # would not be chosen anyway
        (UNDECIDED, INFERIOR, None, ["ptq"]),
        (INFERIOR, INFERIOR, None, []),
        # The test's figures decide nothing.
        ({"difference": LOSS_OF_EER | LOSS_OF_TOP1, "eer": 0.5}, UNDECIDED, "ptq", []),
    ],
)
def test_the_cheapest_model_that_passes_on_validation_speakers_is_chosen(measured, ptq, qat, chosen, undecided):
    results = altered(measured, ptq=ptq, qat=qat)
    choice = decision.choice(results)
    assert (choice and choice.name) == chosen
    assert [model.name for model in decision.undecided(results)] == undecided


@pytest.mark.parametrize(
    "eer_high, top1_low, confirmed",
    [(0.0049, -0.019, True), (0.0051, -0.019, False), (0.0049, -0.021, False), (-0.001, 0.001, True)],
)
def test_the_test_confirms_where_its_intervals_lie_within_both_margins(measured, eer_high, top1_low, confirmed):
    differences = {
        "eer": {"value": eer_high - 0.01, "low": -0.2, "high": eer_high},
        "top1_accuracy": {"value": top1_low + 0.01, "low": top1_low, "high": 0.2},
    }
    results = altered(measured, ptq={"difference": differences}, qat=INFERIOR)
    assert decision.confirmed(results.models["ptq"], results) == confirmed
    facts = decision.facts(results)
    assert facts["confirmed_on_test"] == confirmed and facts["verdicts"] == {"ptq": "passes", "qat": "inferior"}
    assert facts["margins"] == {"eer": 0.005, "top1": 0.02} and facts["speakers"] == 40
    assert decision.facts(altered(measured, ptq=INFERIOR, qat=INFERIOR))["confirmed_on_test"] is None


@pytest.mark.parametrize("confirmed", [True, False])
def test_where_the_tests_speakers_are_measured_as_those_of_validation_these_figures_confirm(measured, confirmed):
    within, beyond = (
        {
            key: {"value": 0.0, "low": -0.001 if good else -0.03, "high": 0.001 if good else 0.03}
            for key in ("eer", "top1_accuracy")
        }
        for good in (True, False)
    )
    of_trials, of_speakers = (beyond, within) if confirmed else (within, beyond)
    results = altered(measured, ptq={"difference": of_trials, "confirmation": {"difference": of_speakers}})
    assert decision.confirmed(results.models["ptq"], results) == confirmed
