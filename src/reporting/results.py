"""What the other stages wrote, read in one place."""

import csv
import json
import math
from dataclasses import dataclass

import numpy as np

from src.common import layout
from src.common.params import Params
from src.data import manifest
from src.evaluate import conditions, test_set
from src.evaluate.scores import read_scores
from src.evaluate.test_set import ALL, Test
from src.evaluate.trials import within
from src.runtime.errors import InputError

TITLES = {"fp32": "fp32", "ptq": "INT8 PTQ", "qat": "INT8 QAT"}
COST = ("gmacs", "gflops", "int8_mac_share", "front_end_gmacs", "params_million", "size_mb")
DIFFERENCE = ("eer_difference", "eer_difference_low", "eer_difference_high")


@dataclass(frozen=True)
class Model:
    """One of fp32, ptq and qat. `cost` has the cost keys of its own ONNX file, `timing` its latency file."""

    name: str
    accuracy: dict
    cost: dict
    timing: dict
    scores: np.ndarray  # float64 [trials], of Results.test.verification

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def taken(self) -> dict:
        """Median, quartiles and speed-up of this model in its latency file."""
        return self.timing["models"][self.name]

    def over(self, group: str) -> dict:
        """The accuracy keys over a group of speakers, with `difference` unless this is fp32."""
        return self.accuracy if group == ALL else self.accuracy[group]


@dataclass(frozen=True)
class Results:
    params: Params
    models: dict[str, Model]
    profile: dict
    search: dict
    layers: list[dict]  # rows of macs.csv
    trials: list[dict]  # rows of trials.csv; none where nothing was trained
    frontier: list[dict]  # rows of frontier.csv
    spectra: list[dict]  # rows of spectra.csv; none where the search keeps every operation
    test: Test
    seen: int  # how many of the test speakers the encoder was trained on
    shared: int  # how many of them fine-tuning hears too
    breakdown_seen: bool  # whether such speakers are in the breakdown

    @property
    def chosen(self) -> dict | None:
        """The row of `frontier` or of `trials` that the search chose; None where it chose nothing smaller."""
        chosen = self.search["chosen"]
        for row in (*self.frontier, *self.trials):
            if int(row["trial"]) == chosen["trial"] and math.isclose(float(row["share"]), chosen["share"]):
                return row
        return None

    @property
    def groups(self) -> list[str]:
        """The groups of speakers that there are figures for, the one that the verdict is about first."""
        return [group for group in ("unseen", ALL, "seen") if group in self.test.groups]

    def logmel(self, group: str) -> dict:
        """The accuracy keys of log-mel statistics, without a model, over a group of speakers."""
        accuracy = self.models["fp32"].accuracy[layout.LOGMEL]
        return accuracy if group == ALL else accuracy[group]

    @property
    def judged(self) -> np.ndarray:
        """bool [trials]: the trials of the group that the verdict is about."""
        return within(self.test.verification, self.test.groups[self.groups[0]])

    def over_seen(self, group: str) -> bool:
        """Whether figures over this group include speakers that the encoder was trained on."""
        return group == "seen" or (group == ALL and self.seen > 0)

    @property
    def marked(self) -> bool:
        """Whether any figures include speakers that the encoder was trained on."""
        return self.breakdown_seen or any(map(self.over_seen, self.groups))


def load(params: Params) -> Results:
    """Read what the report needs. Raises InputError when a file is missing, damaged or not up to date."""
    details = {stage: _json(layout.details(stage), stage) for stage in ("baseline", "profile", "ptq", "qat_search")}
    timings = {
        name: _json(layout.latency(name), "profile" if name == "fp32" else layout.STAGES[name]) for name in TITLES
    }
    test = test_set.load(manifest.read(), params)
    profile, accuracies = details["profile"], {name: details[layout.STAGES[name]] for name in TITLES}
    for group in set(test.groups) - {ALL}:
        if not all(group in accuracy for accuracy in (*accuracies.values(), details["baseline"][layout.LOGMEL])):
            raise InputError(f"{layout.METRICS}: no figures over {group} speakers; run the stages from baseline on")
    rewritten = {"gmacs": profile["rewritten_gmacs"], "gflops": 2 * profile["rewritten_gmacs"]}
    costs = accuracies | {"fp32": {key: profile[key] for key in COST} | rewritten}
    models = {
        name: Model(
            name, accuracies[name], costs[name], timings[name], read_scores(layout.scores(name), test.verification)
        )
        for name in TITLES
    }
    seen = {row.speaker: row.seen for row in test.rows}
    broken_down = conditions.choose(test.rows, params.evaluate.enrolments, params.breakdown.utterances)
    return Results(
        params,
        models,
        profile,
        details["qat_search"],
        read_csv("macs", "profile"),
        read_csv("trials", "qat_search", empty=True),
        read_csv("frontier", "qat_search"),
        read_csv("spectra", "qat_search", empty=True),
        test,
        sum(seen.values()),
        test.shared_speakers,
        any(row.seen for row in broken_down),
    )


def _json(path, stage):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage {stage}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}; run the stage {stage} again") from None


def read_csv(name: str, stage: str, empty: bool = False) -> list[dict]:
    """The rows of a table, each a dict. Raises InputError when its file is missing, or has no rows and may not be
    empty."""
    path = layout.table(name)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage {stage}") from None
    if not (rows or empty):
        raise InputError(f"{path}: no rows; run the stage {stage} again")
    return rows
