"""How accurate a model is on the test split and how far that is from another model, with 95 % intervals."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.data import manifest
from src.data.trial_list import read_trial_list
from src.evaluate import bootstrap, metrics, normalise, score_calibration, scores
from src.evaluate.extract import embed
from src.evaluate.trials import Trials, all_pairs, evaluated_rows, from_list
from src.runtime import calibration
from src.runtime.calibration import Calibration
from src.runtime.errors import InputError

FOLDER = Path("metrics")
KEYS = ("top1_accuracy", "eer", *map(metrics.dcf_key, metrics.PRIORS), "cllr", "min_cllr")
ALL = "all"
# The minimum Cllr adapts to the very trials, and so is too low, by 1.7 to 2 times what the resamples show.
MIN_CLLR_SHIFT = 2
_DIGITS = 6


@dataclass(frozen=True)
class Test:
    """What every model is evaluated on.

    verification: for EER and minDCF; identification: all pairs, for top-1. groups: {"all", and "seen" and
    "unseen" where there are speakers of both kinds: bool [speakers]}; the trials of a group are those of
    which both speakers belong to it. A group in which no metric can be computed, such as that of one
    speaker, is left out.
    """

    verification: Trials
    identification: Trials
    groups: dict[str, np.ndarray]


@dataclass(frozen=True)
class Result:
    """What a model did: the score of every verification trial, its ranks (see `scores.write_ranks`), and how
    its scores become log-likelihood ratios, for Cllr."""

    scores: np.ndarray
    ranks: dict[str, list]
    calibration: Calibration


def evaluate(model, name, rows, config, reference=None) -> dict:
    """Accuracy of a model on the test split; writes metrics/{scores,ranks}/<name>.csv and
    metrics/calibration/<name>.json.

    model: an ONNX file, or a function that gives the embeddings of manifest rows. rows: all of the
    manifest. config: the parameters (seed, evaluate, data.trials). reference: name
    of a model evaluated before on the same rows, to give the differences to it. Returns what `figures`
    gives, `calibration` {scale, offset} and `threshold_eer` (see `Calibration`), and `trials_missing` where a
    trial list has trials of utterances that are not among the rows, and `shared_speakers` where there are
    any. Raises InputError as the functions that it calls.
    """
    shared = shared_speakers(rows, config.evaluate.allow_shared_speakers)
    trial_list = config.data.trials and read_trial_list(config.data.trials)
    tested = evaluated_rows(rows, config.evaluate.protocol, config.evaluate.enrolments)
    test = make_test(tested, config.evaluate.enrolments, trial_list)
    # A trial list's enrolments are single utterances.
    validation = score_calibration.rows_and_trials(rows, 1 if trial_list else config.evaluate.enrolments)
    cohort = _cohort(model, rows, config.evaluate)
    fitted = replace(_calibration(model, *validation, *cohort), normalisation=config.evaluate.normalisation)
    result = score(_embed(model, tested), test, fitted, *cohort)
    other = reference and Result(
        scores.read_scores(FOLDER / "scores" / f"{reference}.csv", test.verification),
        scores.read_ranks(FOLDER / "ranks" / f"{reference}.csv", result.ranks),
        calibration.read(FOLDER / "calibration" / f"{reference}.json"),
    )
    scores.write_scores(FOLDER / "scores" / f"{name}.csv", test.verification, result.scores)
    scores.write_ranks(FOLDER / "ranks" / f"{name}.csv", result.ranks)
    calibration.write(FOLDER / "calibration" / f"{name}.json", fitted)
    found = figures(test, result, config.evaluate.bootstrap, config.seed, other, config.evaluate.margin)
    found["calibration"] = {"scale": fitted.scale, "offset": fitted.offset}
    found["threshold_eer"] = fitted.threshold_eer
    if trial_list:
        found["trials_missing"] = len(trial_list) - len(test.verification)
    if shared:
        found["shared_speakers"] = len(shared)
    return found


def shared_speakers(rows, allowed):
    """Names of the speakers that are in the test split and in the split finetune, sorted.

    Raises InputError when there are any, unless `allowed`: a model fine-tuned on a speaker knows the voice.
    """
    shared = manifest.in_both(rows, "test", "finetune")
    if shared and not allowed:
        raise InputError(
            f"{manifest.PATH}: {len(shared)} test speakers are in the split finetune too ({shared[0]}): their "
            "EER would not be that of new speakers; evaluate.allow_shared_speakers: true reports it all the same"
        )
    return shared


def _embed(model, rows):
    return model(rows) if callable(model) else embed(model, rows)


def make_test(rows, enrolments, trial_list=None) -> Test:
    """The trials for these rows: of a list (see `trials.from_list`), or all pairs."""
    identification = all_pairs(rows, enrolments)
    verification = from_list(rows, trial_list) if trial_list else identification
    seen = {row.speaker for row in rows if row.seen}
    unseen = np.array([speaker not in seen for speaker in identification.speakers])
    groups = {ALL: np.ones(len(unseen), dtype=bool)}
    if unseen.any() and not unseen.all():
        for group, mask in (("seen", ~unseen), ("unseen", unseen)):
            targets = verification.targets[_within(verification, mask)]
            if targets.any() and not targets.all() and mask[identification.enrol_speakers].sum() > 1:
                groups[group] = mask
    return Test(verification, identification, groups)


def _within(trials, mask):
    """bool [n]: the trials of which both speakers belong to the group."""
    return mask[trials.enrol_speakers][trials.enrol] & mask[trials.test_speakers][trials.test]


def _cohort(model, rows, config):
    """(models of the cohort's speakers by this very encoder, how many of them count); None without one."""
    if config.normalisation == "none":
        return None, None
    top = config.cohort_top if config.normalisation == "as-norm" else None
    chosen = normalise.cohort_rows(rows, top)
    return normalise.speaker_models(_embed(model, chosen), [row.speaker for row in chosen]), top


def _calibration(model, rows, trials, cohort, top):
    return score_calibration.fit(_scores(_embed(model, rows), trials, cohort, top), trials.targets)


def _scores(embeddings, trials, cohort, top):
    """Cosines of the trials; with `cohort`, normalised (see `normalise.s_norm`)."""
    found = scores.cosine(embeddings, trials)
    return found if cohort is None else normalise.s_norm(found, embeddings, trials, cohort, top)


def score(embeddings, test, fitted, cohort=None, top=None) -> Result:
    """Scores and ranks from the embeddings [rows, dim] of the rows that the test was made from.

    fitted: the calibration that goes with them; cohort, top: as for `normalise.s_norm`.
    """
    verification, trials = _scores(embeddings, test.verification, cohort, top), test.identification
    identification = verification if trials is test.verification else _scores(embeddings, trials, cohort, top)
    grid = identification.reshape(len(trials.enrol_names), len(trials.test_names))
    ranks = {}
    for group, mask in test.groups.items():
        enrolled = np.flatnonzero(mask[trials.enrol_speakers])
        probes = np.flatnonzero(mask[trials.test_speakers])
        right = trials.enrol_speakers[enrolled][:, None] == trials.test_speakers[probes]
        found = metrics.identification_ranks(grid[np.ix_(enrolled, probes)], right.argmax(axis=0))
        ranks[group] = [
            (trials.test_names[probe], trials.speakers[trials.test_speakers[probe]], int(rank))
            for probe, rank in zip(probes, found)
        ]
    return Result(verification, ranks, fitted)


def score_uncalibrated(embeddings, test) -> Result:
    """As `score`, of cosines, with a calibration that is fitted to these very trials: no Cllr is to be read off."""
    embeddings, trials = np.asarray(embeddings), test.verification
    return score(embeddings, test, score_calibration.fit(scores.cosine(embeddings, trials), trials.targets))


def figures(test, result, resamples, seed, reference=None, margin=None) -> dict:
    """Accuracy over all trials, and in `seen` and `unseen` over those of the group.

    Each of KEYS with its `<key>_ci` {low, high}; trials, target_trials, speakers, utterances (test
    utterances of the trials); with `reference`, another model's Result, `difference` {key: {value, low,
    high}}, this model less that one, over the same resamples, `smallest_detectable_eer` (see
    `bootstrap.smallest_detectable`) and, with `margin`, `noninferior`: 1 when the upper end of the EER
    difference's interval is below it, else 0. Fractions; intervals at 95 %.
    """
    found = {group: _figures(test, group, result, resamples, seed, reference, margin) for group in test.groups}
    return {**found.pop(ALL), **found}


def _figures(test, group, result, resamples, seed, reference, margin):
    trials, mask = test.verification, test.groups[group]
    kept = _within(trials, mask)
    targets = trials.targets[kept]
    sides = trials.enrol_speakers[trials.enrol[kept]], trials.test_speakers[trials.test[kept]]
    number = {speaker: index for index, speaker in enumerate(trials.speakers)}
    probes = np.array([number[speaker] for _, speaker, _ in result.ranks[group]])
    used, columns = np.unique(np.concatenate([*sides, probes]), return_inverse=True)
    enrol, tested, probes = np.split(columns, np.cumsum([len(targets), len(targets)]))
    counts = bootstrap.resamples(len(used), resamples, seed)

    def measured(model):
        correct = np.array([rank == 1 for _, _, rank in model.ranks[group]])
        own = model.scores[kept]
        llrs = model.calibration.llrs(own)
        estimates = {"top1_accuracy": correct.mean(), **metrics.detection(own, targets, llrs=llrs)}
        values = {
            "top1_accuracy": bootstrap.identification(correct, probes, counts),
            **bootstrap.detection(own, targets, enrol, tested, counts, llrs=llrs),
        }
        return {key: (estimates[key], values[key]) for key in KEYS}

    own, found = measured(result), {}
    for key, (estimate, values) in own.items():
        found[key] = round(float(estimate), _DIGITS)
        shift, most = (MIN_CLLR_SHIFT, 1) if key == "min_cllr" else (0, np.inf)
        low, high = bootstrap.interval(estimate, values, counts, shift)
        found[f"{key}_ci"] = {"low": round(low, _DIGITS), "high": round(min(high, most), _DIGITS)}
    found |= {
        "trials": len(targets),
        "target_trials": int(targets.sum()),
        "speakers": len(np.unique(sides)),
        "utterances": len(np.unique(trials.test[kept])),
    }
    if reference:
        others = measured(reference)
        found["difference"] = {key: _difference(*own[key], *others[key], counts) for key in KEYS}
        smallest = bootstrap.smallest_detectable(own["eer"][1] - others["eer"][1], counts)
        found["smallest_detectable_eer"] = round(smallest, _DIGITS)
        if margin is not None:
            found["noninferior"] = int(found["difference"]["eer"]["high"] < margin)
    return found


def _difference(estimate, values, other_estimate, other_values, counts):
    value = estimate - other_estimate
    low, high = bootstrap.difference_interval(value, values - other_values, counts)
    numbers = {"value": float(value), "low": low, "high": high}
    return {name: round(number, _DIGITS) for name, number in numbers.items()}


def summary(found) -> str:
    """What `figures` gives, over all trials, in a line."""

    def percent(key):
        low, high = (100 * found[f"{key}_ci"][end] for end in ("low", "high"))
        return f"{100 * found[key]:.2f} % [{low:.2f}, {high:.2f}]"

    costs = ", ".join(f"minDCF({prior:g}) {found[metrics.dcf_key(prior)]:.3f}" for prior in metrics.PRIORS)
    return (
        f"top-1 {percent('top1_accuracy')}, EER {percent('eer')}, {costs}, "
        f"{found['trials']} trials of {found['speakers']} speakers"
    )
