"""The decision follows the intervals."""

import pytest

from src.evaluate.accuracy import KEYS
from src.reporting import decision
from src.reporting.results import load
from tests.reporting.conftest import change, write

OPEN = {"value": 0.001, "low": -0.002, "high": 0.003}
WORSE = {"value": 0.01, "low": 0.004, "high": 0.02}
LOSS_OF_EER = {"eer": WORSE}
LOSS_OF_TOP1 = {"top1_accuracy": {"value": -0.02, "low": -0.03, "high": -0.01}}


def results(ptq, qat):
    """Results whose INT8 models differ in these keys of their metrics; a difference not given is `OPEN`."""
    config = write()
    for path, values in (("ptq", ptq), ("qat_search", qat)):
        difference = dict.fromkeys(KEYS, OPEN) | values.get("difference", {})
        change(f"metrics/details/{path}.json", **{"eer": 0.05, "noninferior": 0, **values, "difference": difference})
    return load(config)


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
def test_choice(place, ptq, qat, chosen):
    choice = decision.choice(results(ptq, qat))
    assert (choice and choice.name) == chosen


def test_every_loss_is_named(place):
    lossy = results({"difference": LOSS_OF_EER | LOSS_OF_TOP1}, {})
    assert decision.losses(lossy.models["ptq"], lossy) == ["top1_accuracy", "eer"]
    assert decision.losses(lossy.models["qat"], lossy) == []
