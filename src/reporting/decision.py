"""Which model to use: chosen on validation speakers, confirmed or not confirmed by the test."""

from typing import Any, Literal

from src.evaluate.validation import Verdict
from src.reporting.numbers import MEASURES
from src.reporting.results import Model, Results

Effect = Literal["same", "worse", "better", "open"]


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


def verdict(model: Model) -> Verdict:
    """Of an INT8 model on validation speakers (see `validation.verdict`)."""
    return model.accuracy["validation"]["verdict"]


def by_cost(results: Results) -> list[Model]:
    """The INT8 models, the cheapest first: by GMACs, then the larger share of them in INT8, then the size."""
    return sorted(
        quantised(results),
        key=lambda model: (
            round(model.cost["gmacs"], 4),
            -round(model.cost["int8_mac_share"], 3),
            model.cost["size_mb"],
        ),
    )


def choice(results: Results) -> Model | None:
    """The INT8 model to use, the cheapest that passes on validation speakers; None where none does."""
    return next((model for model in by_cost(results) if verdict(model) == "passes"), None)


def undecided(results: Results) -> list[Model]:
    """The INT8 models that would be chosen if they passed, and neither pass nor are shown to lose."""
    models, chosen = by_cost(results), choice(results)
    return [model for model in models[: models.index(chosen) if chosen else None] if verdict(model) == "undecided"]


def judged_on_test(model: Model, results: Results) -> dict:
    """The figures by which the test confirms a choice or does not: of its speakers by the validation's own measure, or
    over its trials, where these are of a list or of a protocol."""
    return model.accuracy.get("confirmation") or model.over(results.groups[0])


def confirmed(model: Model, results: Results) -> bool:
    """Whether the test, too, shows an INT8 model to lose less than the margins: by the 95 % intervals of its
    differences to fp32."""
    margins, difference = results.params.evaluate.margins, judged_on_test(model, results)["difference"]
    return difference["eer"]["high"] < margins.eer and -difference["top1_accuracy"]["low"] < margins.top1


def facts(results: Results) -> dict[str, Any]:
    """How the model was chosen, for the release: the split, its speakers, the margins, each INT8 model's verdict, and
    whether the test confirms that of the chosen one (None where that is fp32)."""
    chosen = choice(results)
    return {
        "split": "validation",
        "speakers": results.models["fp32"].accuracy["validation"]["speakers"],
        "margins": results.params.evaluate.margins.model_dump(),
        "verdicts": {model.name: verdict(model) for model in quantised(results)},
        "confirmed_on_test": confirmed(chosen, results) if chosen else None,
    }
