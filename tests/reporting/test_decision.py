"""The decision follows the intervals."""

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


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Results of a run."""
    with contextlib.chdir(tmp_path_factory.mktemp("run")):
        return load(write())


def altered(results, **models):
    """Results with other figures; models: {name: {key of its accuracy or cost: value}}, a difference not given is OPEN."""
    changed = {}
    for name, values in models.items():
        model, values = results.models[name], {"eer": 0.05, "noninferior": 0, **values}
        difference = dict.fromkeys(KEYS, OPEN) | values.get("difference", {})
        changed[name] = replace(
            model, accuracy=model.accuracy | values | {"difference": difference}, cost=model.cost | values
        )
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
    "ptq, qat, chosen",
    [
        ({}, {"eer": 0.06}, "ptq"),  # equal in all else: the lower EER
        ({"difference": LOSS_OF_TOP1}, {"eer": 0.06}, "qat"),
        ({"difference": LOSS_OF_EER}, {"eer": 0.06}, "qat"),
        ({"difference": LOSS_OF_EER, "noninferior": 1}, {"eer": 0.06}, "ptq"),  # lost, but within the margin
        ({"difference": {"cllr": WORSE}}, {"eer": 0.06}, "ptq"),  # not decisive
        ({"noninferior": 1}, {"eer": 0.06, "gmacs": 1.7}, "ptq"),  # non-inferiority before operations
        ({"noninferior": 1}, {"eer": 0.06, "gmacs": 1.7, "noninferior": 1}, "qat"),
        ({"int8_mac_share": 0.9}, {"eer": 0.06, "int8_mac_share": 0.99}, "qat"),  # equal GMACs
        ({"difference": LOSS_OF_EER}, {"difference": LOSS_OF_TOP1}, None),
    ],
)
def test_choice(measured, ptq, qat, chosen):
    choice = decision.choice(altered(measured, ptq=ptq, qat=qat))
    assert (choice and choice.name) == chosen


def test_every_loss_is_named(measured):
    lossy = altered(measured, ptq={"difference": LOSS_OF_EER | LOSS_OF_TOP1}, qat={})
    assert decision.losses(lossy.models["ptq"], lossy) == ["top1_accuracy", "eer"]
    assert decision.losses(lossy.models["qat"], lossy) == []
