"""Which model to use: the one with the fewest operations among those that were not shown to lose accuracy."""

from typing import Literal

from src.reporting.numbers import MEASURES
from src.reporting.results import Model, Results

Effect = Literal["same", "worse", "better", "open"]
DECISIVE = ("top1_accuracy", "eer")  # what identification and verification must not lose


def effect(key: str, figures: dict) -> Effect:
    """What the 95 % interval of the difference to fp32 in an accuracy key shows.

    `worse` and `better` where it excludes 0, `same` where no resample differs, otherwise `open`.
    """
    difference = figures["difference"][key]
    low, high = difference["low"], difference["high"]
    if MEASURES[key].higher_is_better:
        low, high = -high, -low
    if low == high == difference["value"] == 0:
        return "same"
    return "worse" if low > 0 else "better" if high < 0 else "open"


def quantised(results: Results) -> list[Model]:
    """The INT8 models."""
    return [model for model in results.models.values() if model.name != "fp32"]


def losses(model: Model, results: Results) -> list[str]:
    """The keys of DECISIVE in which an INT8 model was shown to lose; an EER within the margin is no loss."""
    figures = model.over(results.groups[0])
    return [
        key for key in DECISIVE if effect(key, figures) == "worse" and not (key == "eer" and figures["noninferior"])
    ]


def choice(results: Results) -> Model | None:
    """The INT8 model to use, or None where each was shown to lose.

    Of those without `losses`, the ones whose EER is shown to be non-inferior come first, then the fewest GMACs, then
    the largest share of them in INT8; the lower EER decides between equals.
    """
    return min(
        (model for model in quantised(results) if not losses(model, results)),
        default=None,
        key=lambda model: (
            not model.over(results.groups[0])["noninferior"],
            round(model.cost["gmacs"], 4),
            -round(model.cost["int8_mac_share"], 3),
            model.over(results.groups[0])["eer"],
        ),
    )
