"""What the other stages wrote, read in one place."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.data import manifest
from src.data.trial_list import read_trial_list
from src.evaluate import conditions
from src.evaluate.accuracy import ALL, KEYS, Test, make_test, shared_speakers
from src.evaluate.scores import read_scores
from src.evaluate.trials import evaluated_rows
from src.runtime.errors import InputError

FOLDER = Path("metrics")
TITLES = {"fp32": "fp32", "ptq": "INT8 PTQ", "qat": "INT8 QAT"}
_ACCURACY = [*(key + end for key in KEYS for end in ("", "_ci")), "trials", "target_trials", "speakers"]
_COST = ["gmacs", "gflops", "int8_mac_share", "front_end_gmacs", "params_million", "size_mb"]
_COMPARED = ["difference", "noninferior", "smallest_detectable_eer"]
DIFFERENCE = ("eer_difference", "eer_difference_low", "eer_difference_high")
_TIMING = ["models", "reference", "seconds", "rounds", "threads", "cpu", "versions"]
_FILES = {
    "baseline": ("baseline", [*_ACCURACY, "parity_cosine", "trivial"]),
    "profile": ("profile", [*_COST, "rewritten_gmacs", "checkpoint_mb", "seconds"]),
    "latency": ("profile", _TIMING),
    "ptq": ("ptq", [*_ACCURACY, *_COST, *_COMPARED, "int8_mac_share_in_file", "calibration_utterances"]),
    "ptq_latency": ("ptq", _TIMING),
    "qat_search": (
        "qat_search",
        [
            *_ACCURACY,
            *_COST,
            *_COMPARED,
            "int8_mac_share_in_file",
            "n_trials",
            "passed_validation",
            "chosen",
            "objective_untrained",
            "objective_fp32",
        ],
    ),
    "qat_search_latency": ("qat_search", _TIMING),
}


@dataclass(frozen=True)
class Model:
    """One of fp32, ptq and qat. `cost` has the cost keys of its own ONNX file, `timing` its latency file."""

    name: str
    accuracy: dict
    cost: dict
    timing: dict
    scores: np.ndarray  # float64 [trials], of Results.test.verification

    @property
    def title(self):
        return TITLES[self.name]

    @property
    def taken(self):
        """Median, quartiles and speed-up of this model in its latency file."""
        return self.timing["models"][self.name]

    def over(self, group):
        """The accuracy keys over a group of speakers, with `difference` unless this is fp32."""
        return self.accuracy if group == ALL else self.accuracy[group]


@dataclass(frozen=True)
class Results:
    params: object
    models: dict[str, Model]
    profile: dict
    search: dict
    layers: list[dict]  # rows of macs.csv
    trials: list[dict]  # rows of trials.csv
    spectra: list[dict]  # rows of spectra.csv; none where the search keeps every operation
    test: Test
    seen: int  # how many of the test speakers the encoder was trained on
    shared: int  # how many of them are in the split finetune too
    breakdown_seen: bool  # whether such speakers are in the breakdown

    @property
    def groups(self):
        """The groups of speakers that there are figures for, the one that the verdict is about first."""
        return [group for group in ("unseen", ALL, "seen") if group in self.test.groups]

    def trivial(self, group):
        """The accuracy keys of log-mel statistics, without a model, over a group of speakers."""
        found = self.models["fp32"].accuracy["trivial"]
        return found if group == ALL else found[group]

    @property
    def judged(self):
        """bool [trials]: the trials of the group that the verdict is about."""
        trials, mask = self.test.verification, self.test.groups[self.groups[0]]
        return mask[trials.enrol_speakers[trials.enrol]] & mask[trials.test_speakers[trials.test]]

    def over_seen(self, group):
        """Whether figures over this group include speakers that the encoder was trained on."""
        return group == "seen" or (group == ALL and self.seen > 0)

    @property
    def marked(self):
        """Whether any figures include speakers that the encoder was trained on."""
        return self.breakdown_seen or any(map(self.over_seen, self.groups))


def load(params) -> Results:
    """Read what the report needs. Raises InputError when a file is missing, damaged or not up to date."""
    files = {name: _json(name, stage, keys) for name, (stage, keys) in _FILES.items()}
    profile = files["profile"]
    rows = manifest.read()
    shared = shared_speakers(rows, params.evaluate.allow_shared_speakers)
    rows = evaluated_rows(rows, params.evaluate.protocol, params.evaluate.enrolments)
    trial_list = params.data.trials and read_trial_list(params.data.trials)
    test = make_test(rows, params.evaluate.enrolments, trial_list)
    costs = {
        "fp32": {key: profile[key] for key in _COST}
        | {"gmacs": profile["rewritten_gmacs"], "gflops": 2 * profile["rewritten_gmacs"]},
        "ptq": files["ptq"],
        "qat": files["qat_search"],
    }
    accuracies = {"fp32": files["baseline"], "ptq": files["ptq"], "qat": files["qat_search"]}
    for group in set(test.groups) - {ALL}:
        if not all(group in found for found in (*accuracies.values(), files["baseline"]["trivial"])):
            raise InputError(f"{FOLDER}: no figures over {group} speakers; run the stages from baseline on")
    timings = {"fp32": files["latency"], "ptq": files["ptq_latency"], "qat": files["qat_search_latency"]}
    models = {
        name: Model(
            name,
            accuracies[name],
            costs[name],
            timings[name],
            read_scores(FOLDER / "scores" / f"{name}.csv", test.verification),
        )
        for name in TITLES
    }
    seen = {row.speaker: row.seen for row in rows}
    broken_down = conditions.choose(rows, params.evaluate.enrolments, params.breakdown.utterances)
    return Results(
        params,
        models,
        profile,
        files["qat_search"],
        read_csv("macs.csv", "profile", ("layer", "gmacs", "share")),
        read_csv("trials.csv", "qat_search", ("trial", "objective", "gmacs", "front", *DIFFERENCE)),
        read_csv("spectra.csv", "qat_search", ("layer", "components", "explained", "rank"), empty=True),
        test,
        sum(seen.values()),
        len(shared),
        any(row.seen for row in broken_down),
    )


def _json(name, stage, keys):
    path = FOLDER / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage {stage}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}; run the stage {stage} again") from None
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)}: missing; run the stage {stage} again")
    return content


def read_csv(name, stage, columns, empty=False):
    """The rows of a CSV in metrics/, each a dict. Raises InputError when it is missing, or lacks a value in one
    of these columns, or has no rows and may not be empty."""
    path = FOLDER / name
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage {stage}") from None
    if not (rows or empty) or any(row.get(column) is None for row in rows for column in columns):
        raise InputError(f"{path}: rows with {', '.join(columns)} are needed; run the stage {stage} again")
    return rows
