"""How accurate a model is and how far that is from another model, with 95 % intervals."""

import numpy as np

from src.common.params import Params
from src.evaluate import bootstrap, metrics
from src.evaluate.result import Result
from src.evaluate.test_set import ALL, Test
from src.evaluate.trials import Subset, subset, within

KEYS = ("top1_accuracy", "eer", *map(metrics.dcf_key, metrics.PRIORS), "cllr", "min_cllr")
HEADLINE = ("top1_accuracy", "eer", "min_dcf_0.01", "cllr")
# The minimum Cllr adapts to the very trials, and so is too low, by 1.7 to 2 times what the resamples show.
MIN_CLLR_SHIFT = 2
_DIGITS = 6
_HEADLINE_DIGITS = 4


def summarise(test: Test, result: Result, params: Params, reference: Result | None = None) -> dict:
    """What `figures` gives with the resamples, seed and margin of the parameters, `calibration` {scale, offset} and
    `threshold_eer` (see `Calibration`), and `trials_missing` and `shared_speakers` of a test that has any."""
    summary = figures(test, result, params.evaluate.bootstrap, params.seed, reference, params.evaluate.margins.eer)
    summary["calibration"] = {"scale": result.calibration.scale, "offset": result.calibration.offset}
    summary["threshold_eer"] = result.calibration.threshold_eer
    if test.trials_missing is not None:
        summary["trials_missing"] = test.trials_missing
    if test.shared_speakers:
        summary["shared_speakers"] = test.shared_speakers
    return summary


def headline(summary: dict) -> dict:
    """Of what `summarise` gives, what a person compares between runs, rounded: HEADLINE and, where there is a
    reference, `eer_difference` to it and `eer_difference_high`, the upper end of its interval."""
    compared = {key: summary[key] for key in HEADLINE}
    if "difference" in summary:
        difference = summary["difference"]["eer"]
        compared |= {"eer_difference": difference["value"], "eer_difference_high": difference["high"]}
    return {key: round(value, _HEADLINE_DIGITS) for key, value in compared.items()}


def figures(
    test: Test, result: Result, resamples: int, seed: int, reference: Result | None = None, margin: float | None = None
) -> dict:
    """Accuracy over all trials, and in `seen` and `unseen` over those of the group.

    Each of KEYS with its `<key>_ci` {low, high}; trials, target_trials, speakers, utterances (test
    utterances of the trials); with `reference`, another model's Result, `difference` {key: {value, low,
    high}}, this model less that one, over the same resamples, `smallest_detectable_eer` (see
    `bootstrap.smallest_detectable`) and, with `margin`, `noninferior`: 1 when the upper end of the EER
    difference's interval is below it, else 0. Fractions; intervals at 95 %.
    """
    by_group = {group: _figures(test, group, result, resamples, seed, reference, margin) for group in test.groups}
    return {**by_group.pop(ALL), **by_group}


def _figures(test, group, result, resamples, seed, reference, margin):
    trials = test.verification
    part = subset(trials, within(trials, test.groups[group]), [speaker for _, speaker, _ in result.ranks[group]])
    counts = bootstrap.resamples(part.speakers, resamples, seed)
    measured, summary = _measured(result, group, part, counts), {}
    for key, (estimate, values) in measured.items():
        summary[key] = round(float(estimate), _DIGITS)
        shift, most = (MIN_CLLR_SHIFT, 1) if key == "min_cllr" else (0, np.inf)
        low, high = bootstrap.interval(estimate, values, counts, shift)
        summary[f"{key}_ci"] = {"low": round(low, _DIGITS), "high": round(min(high, most), _DIGITS)}
    summary |= {
        "trials": len(part.targets),
        "target_trials": int(part.targets.sum()),
        "speakers": len(np.union1d(part.enrol, part.test)),
        "utterances": len(np.unique(trials.test[part.chosen])),
    }
    if reference:
        others = _measured(reference, group, part, counts)
        summary["difference"] = {key: _difference(*measured[key], *others[key], counts) for key in KEYS}
        smallest = bootstrap.smallest_detectable(measured["eer"][1] - others["eer"][1], counts)
        summary["smallest_detectable_eer"] = round(smallest, _DIGITS)
        if margin is not None:
            summary["noninferior"] = int(summary["difference"]["eer"]["high"] < margin)
    return summary


def _measured(result: Result, group: str, part: Subset, counts: np.ndarray) -> dict:
    """{key: (estimate, its value in each resample)} of KEYS over a part of the trials."""
    correct = np.array([rank == 1 for _, _, rank in result.ranks[group]])
    scores, targets = result.scores[part.chosen], part.targets
    llrs = result.calibration.llrs(scores)
    estimates = {"top1_accuracy": correct.mean(), **metrics.detection(scores, targets, llrs=llrs)}
    values = {
        "top1_accuracy": bootstrap.identification(correct, part.probes, counts),
        **bootstrap.detection(scores, targets, part.enrol, part.test, counts, llrs=llrs),
    }
    return {key: (estimates[key], values[key]) for key in KEYS}


def _difference(estimate, values, other_estimate, other_values, counts):
    value = estimate - other_estimate
    low, high = bootstrap.difference_interval(value, values - other_values, counts)
    numbers = {"value": float(value), "low": low, "high": high}
    return {name: round(number, _DIGITS) for name, number in numbers.items()}


def line(summary: dict) -> str:
    """What `figures` gives, over all trials, in a line."""

    def percent(key):
        low, high = (100 * summary[f"{key}_ci"][end] for end in ("low", "high"))
        return f"{100 * summary[key]:.2f} % [{low:.2f}, {high:.2f}]"

    costs = ", ".join(f"minDCF({prior:g}) {summary[metrics.dcf_key(prior)]:.3f}" for prior in metrics.PRIORS)
    return (
        f"top-1 {percent('top1_accuracy')}, EER {percent('eer')}, {costs}, "
        f"{summary['trials']} trials of {summary['speakers']} speakers"
    )
