"""How accurate a model is and how far that is from another model, with 95 % intervals."""

import numpy as np

from src.common.params import Params
from src.evaluate import bootstrap, identification, metrics, sessions
from src.evaluate.result import Result
from src.evaluate.test_set import ALL, Test
from src.evaluate.trials import Subset, subset, within

KEYS = ("top1_accuracy", "eer", *map(metrics.dcf_key, metrics.PRIORS), "cllr", "min_cllr")
MORE = (*map(metrics.act_dcf_key, metrics.PRIORS), *map(metrics.fnmr_key, metrics.FMRS))
HEADLINE = ("top1_accuracy", "eer", "min_dcf_0.01", "cllr")
# Widening and shift of `bootstrap.cost_interval`. The minimum Cllr adapts to the very trials, and so is too low, by 1.7
# to 2 times what resamples of speakers show, and by what those of their sessions too show, which is more.
COSTS = {"cllr": (1.3, 0), "min_cllr": (1.1, 2)}
RATES = tuple(map(metrics.fnmr_key, metrics.FMRS))
# Differences that hang on few non-target trials (see `bootstrap.difference_interval`).
BY_PAIRS = (*map(metrics.dcf_key, metrics.PRIORS), *MORE)
_HEADLINE_DIGITS = 4


def summarise(test: Test, result: Result, params: Params, reference: Result | None = None) -> dict:
    """What `figures` gives with the resamples, seed and margin of the parameters, `calibration` {scale, offset} and
    `threshold_eer` (see `Calibration`), and `trials_missing`, `trials_sampled_from` and `shared_speakers` of a test that
    has any."""
    summary = figures(test, result, params.evaluate.bootstrap, params.seed, reference, params.evaluate.margins.eer)
    summary["calibration"] = {"scale": result.calibration.scale, "offset": result.calibration.offset}
    summary["threshold_eer"] = result.calibration.threshold_eer
    if test.trials_missing is not None:
        summary["trials_missing"] = test.trials_missing
    if test.verification.sampled_from is not None:
        summary["trials_sampled_from"] = test.verification.sampled_from
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

    Each of KEYS and MORE with its `<key>_ci` {low, high}, but for those in `refused`, {key: why}; trials,
    target_trials, speakers, utterances (test utterances of the trials) and, where the data tell them, sessions, which
    then are resampled within speakers; `identification` (see `identification.figures`); with `reference`, another
    model's Result, `difference` {key: {value, low, high}}, this model less that one, over the same resamples,
    `smallest_detectable_eer` (see `bootstrap.smallest_detectable`) and, with `margin`, `noninferior`: 1 when the upper
    end of the EER difference's interval is below it, else 0. Fractions; intervals at 95 %.
    """
    by_group = {group: _figures(test, group, result, resamples, seed, reference, margin) for group in test.groups}
    return {**by_group.pop(ALL), **by_group}


def _figures(test, group, result, resamples, seed, reference, margin):
    trials = test.verification
    part = subset(trials, within(trials, test.groups[group]), [speaker for _, speaker, _ in result.ranks[group]])
    counts = bootstrap.resamples(part.speakers, resamples, seed)
    drawn = sessions.none(part, counts)
    if test.sessions:
        probe_rows = test.identification.test_rows[test.identified(group)[1]]
        drawn = sessions.draw(test.sessions, trials, part, probe_rows, counts, seed)
    nontargets = int(np.count_nonzero(~part.targets))
    refused = {
        metrics.fnmr_key(fmr): f"{nontargets:,} non-target trials; {metrics.enough_for(fmr):,} are needed"
        for fmr in metrics.FMRS
        if nontargets < metrics.enough_for(fmr)
    }
    measured, summary = _measured(result, group, part, counts, drawn), {}
    for key, (estimate, values) in measured.items():
        if key not in refused:
            summary[key] = round(float(estimate), bootstrap.DIGITS)
            summary[f"{key}_ci"] = bootstrap.rounded_ci(
                *interval(key, estimate, values, counts, drawn.sessions is not None)
            )
    summary |= {
        "trials": len(part.targets),
        "target_trials": int(part.targets.sum()),
        "speakers": len(np.union1d(part.enrol, part.test)),
        "utterances": len(np.unique(trials.test[part.chosen])),
    }
    if drawn.sessions:
        summary["sessions"] = drawn.number
    if refused:
        summary["refused"] = refused
    summary["identification"] = identification.figures(
        test, group, result, (drawn.probes, part.probes), drawn.weights, counts, reference
    )
    if reference:
        others = _measured(reference, group, part, counts, drawn)
        summary["difference"] = {
            key: _difference(key, measured[key], others[key], counts) for key in measured if key not in refused
        }
        changes = _correct(result, group).astype(float) - _correct(reference, group)
        ends = bootstrap.outcome_difference_interval(changes, part.probes)
        summary["difference"]["top1_accuracy"] = bootstrap.rounded(changes.mean(), *ends)
        smallest = bootstrap.smallest_detectable(measured["eer"][1] - others["eer"][1], counts)
        summary["smallest_detectable_eer"] = round(smallest, bootstrap.DIGITS)
        if margin is not None:
            summary["noninferior"] = int(summary["difference"]["eer"]["high"] < margin)
    return summary


def _correct(result, group):
    return np.array([rank == 1 for _, _, rank in result.ranks[group]])


def _measured(result: Result, group: str, part: Subset, counts: np.ndarray, drawn: sessions.Drawn) -> dict:
    """{key: (estimate, its value in each resample)} of KEYS and MORE over a part of the trials."""
    correct = _correct(result, group)
    scores, targets = result.scores[part.chosen], part.targets
    llrs = result.calibration.llrs(scores)
    estimates = {"top1_accuracy": correct.mean(), **metrics.detection(scores, targets, llrs=llrs)}
    values = {
        "top1_accuracy": bootstrap.identification(correct, drawn.probes, drawn.weights),
        **bootstrap.detection(scores, targets, drawn.enrol, drawn.test, counts, llrs=llrs, sessions=drawn.sessions),
    }
    return {key: (estimates[key], values[key]) for key in (*KEYS, *MORE)}


def interval(key, estimate, values, counts, sessions=False):
    if key in COSTS:
        widening, shift = COSTS[key]
        low, high = bootstrap.cost_interval(estimate, values, counts, widening, shift / 2 if sessions else shift)
        return low, high if key == "cllr" else min(high, 1)
    return (bootstrap.rate_interval if key in RATES else bootstrap.interval)(estimate, values, counts)


def _difference(key, figures, others, counts):
    (estimate, values), (other_estimate, other_values) = figures, others
    value = estimate - other_estimate
    return bootstrap.rounded(
        value, *bootstrap.difference_interval(value, values - other_values, counts, key in BY_PAIRS)
    )


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
