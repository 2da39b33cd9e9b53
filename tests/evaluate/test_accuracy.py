import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src.common import params
from src.evaluate import accuracy, metrics, test_set
from src.evaluate.evaluation import evaluate
from src.evaluate.result import score_test
from src.runtime.calibration import Calibration
from src.runtime.errors import InputError
from tests.evaluate import simulation

CONFIG = params.load(Path(__file__).parents[2] / "params.yaml")
FITTED = Calibration(scale=10.0, offset=-5.0, threshold_eer=0.5)


def models(speakers, utterances, seen=0, noise=0.6):
    rows = simulation.rows(speakers, utterances, seen)
    return rows, simulation.embeddings(np.random.default_rng(0), speakers, utterances, noise)


def with_list(path, trials):
    path.write_text("".join(f"{target} {first} {second}\n" for target, first, second in trials))
    data, wanted = CONFIG.data.model_copy(update={"trials": str(path)}), CONFIG.evaluate
    evaluated = wanted.model_copy(update={"max_missing_trials": 0.02})
    return CONFIG.model_copy(update={"data": data, "evaluate": evaluated})


def pairs(rows):
    chosen = [(a, b) for a in rows[1::3] for b in rows[::2] if a != b]
    return [(int(a.speaker == b.speaker), a.utt_id, b.utt_id) for a, b in chosen]


def recomputed(name):
    """Top-1 and EER of every model from its files, by loops that share nothing with the library."""
    with open(f"metrics/scores/{name}.csv") as file:
        trials = [(float(row["score"]), row["target"] == "1") for row in csv.DictReader(file)]
    with open(f"metrics/evaluation/{name}/ranks.csv") as file:
        ranks = [row["rank"] for row in csv.DictReader(file) if row["group"] == "all"]
    positives = sum(target for _, target in trials)
    before = (0.0, 1.0)
    for threshold in [*sorted({score for score, _ in trials}), 9.0]:
        miss = sum(target and score < threshold for score, target in trials) / positives
        fa = sum(not target and score >= threshold for score, target in trials) / (len(trials) - positives)
        if miss >= fa:
            share = (before[1] - before[0]) / (before[1] - before[0] + miss - fa)
            return ranks.count("1") / len(ranks), before[0] + share * (miss - before[0])
        before = miss, fa


def recomputed_cllr(name, scale, offset):
    costs = {"0": [], "1": []}
    with open(f"metrics/scores/{name}.csv") as file:
        for row in csv.DictReader(file):
            sign = 1 if row["target"] == "1" else -1
            costs[row["target"]].append(math.log2(1 + math.exp(-sign * (scale * float(row["score"]) + offset))))
    return sum(sum(own) / len(own) for own in costs.values()) / 2


def test_evaluate_writes_what_its_figures_follow_from(project):
    first = evaluate("a.onnx", "fp32", project, CONFIG)
    second = evaluate("b.onnx", "ptq", project, CONFIG, reference="fp32")
    assert (first["top1_accuracy"], first["eer"]) == pytest.approx(recomputed("fp32"), abs=1e-6)
    assert first["cllr"] == pytest.approx(recomputed_cllr("fp32", **first["calibration"]), abs=1e-6)
    assert "difference" not in first and "trials_missing" not in first
    assert first["trials"] == 6 * 18 and first["target_trials"] == first["utterances"] == 18
    assert first["seen"]["speakers"] == first["unseen"]["speakers"] == 3
    # The second model is twice the first: no cosine differs.
    files = [Path(f"metrics/evaluation/{name}/calibration.json").read_bytes() for name in ("ptq", "fp32")]
    assert files[0] == files[1]
    for part in (second, second["seen"], second["unseen"]):
        difference, probes = part.pop("difference"), part["utterances"]
        low, high = (difference["top1_accuracy"].pop(end) for end in ("low", "high"))
        assert low == -high and 2.8 / probes < high <= 1  # no change was seen; a few may be
        assert difference.pop("top1_accuracy") == {"value": 0.0}
        nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
        assert difference == dict.fromkeys([*accuracy.KEYS[1:], *map(metrics.act_dcf_key, metrics.PRIORS)], nothing)
        for gallery in part["identification"]["galleries"].values():
            assert gallery.pop("difference")["top1"]["value"] == 0
        assert (part.pop("noninferior"), part.pop("smallest_detectable_eer")) == (1, 0)
    judged = second["validation"]
    assert judged.pop("verdict") in ("passes", "undecided") and judged.pop("speakers_needed") > 0
    assert second["confirmation"]["speakers"] == 3  # those that the encoder was not trained on
    for judged in (second["validation"], second["confirmation"]):
        assert {change["value"] for change in judged.pop("difference").values()} == {0.0}
    assert second == first
    assert evaluate("a.onnx", "fp32", project, CONFIG) == first
    json.dumps(first, allow_nan=False)
    assert accuracy.line(first).startswith("top-1 ")


def test_evaluate_a_trial_list(project, tmp_path):
    wanted = pairs(project[:24])
    config = with_list(tmp_path / "list.txt", [*wanted, (0, "s0/0.wav", "s9/0.wav")])
    found = evaluate("a.onnx", "fp32", project, config)
    assert (found["top1_accuracy"], found["eer"]) == pytest.approx(recomputed("fp32"), abs=1e-6)
    assert found["trials"] == len(wanted) and found["trials_missing"] == 1
    assert found["target_trials"] == sum(target for target, _, _ in wanted)
    listed = Path("metrics/scores/fp32.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:2] for line in listed] == [[first, second] for _, first, second in wanted]
    # Top-1 is that of all pairs.
    assert found["top1_accuracy"] == evaluate("a.onnx", "fp32", project, CONFIG)["top1_accuracy"]


def test_reference_of_other_trials(project):
    evaluate("a.onnx", "fp32", project[:16] + project[24:], CONFIG)
    with pytest.raises(InputError, match="fp32.csv: its trials are not those"):
        evaluate("b.onnx", "ptq", project, CONFIG, reference="fp32")
    with pytest.raises(InputError, match="other.csv: no such file"):
        evaluate("b.onnx", "ptq", project, CONFIG, reference="other")


def test_scores_are_calibrated_on_validation_speakers_alone(project):
    first = evaluate("a.onnx", "fp32", project, CONFIG)
    fitted = [first["calibration"], first["threshold_eer"]]
    fewer = evaluate("a.onnx", "fp32", project[8:], CONFIG)
    assert [fewer["calibration"], fewer["threshold_eer"]] == fitted and fewer["cllr"] != first["cllr"]
    other = evaluate("a.onnx", "fp32", project[:-4], CONFIG)
    assert other["calibration"] != fitted[0] and other["eer"] == first["eer"] and other["cllr"] != first["cllr"]
    with pytest.raises(InputError, match="s0 is in the splits validation and test"):
        evaluate("a.onnx", "fp32", [*project, replace(project[0], split="validation")], CONFIG)
    with pytest.raises(InputError, match="split validation, which scores are calibrated on: .* of 1 speakers 1"):
        evaluate("a.onnx", "fp32", project[:28], CONFIG)


@pytest.mark.parametrize("listed", [False, True])
def test_a_group_is_what_its_speakers_alone_give(listed):
    rows, both = models(16, 5, seen=7)
    for group, seen in (("seen", 1), ("unseen", 0)):
        members = [row for row in rows if row.seen == seen]
        kept = np.array([row in members for row in rows])
        found = []
        for own, chosen in ((rows, slice(None)), (members, kept)):
            test = test_set.make_test(own, 1, pairs(rows) if listed else None)
            first, second = (score_test(model[chosen], test, FITTED) for model in both)
            found.append(accuracy.figures(test, second, 200, 0, first))
        assert found[0][group] == found[1]
        assert not {"seen", "unseen"} & set(found[1])


def test_lone_speaker_makes_no_group():
    rows, both = models(5, 4, seen=1)
    test = test_set.make_test(rows, 1)
    assert set(test.groups) == {"all", "unseen"}
    assert "unseen" in accuracy.figures(test, score_test(both[0], test, FITTED), 100, 0)


def test_intervals_and_differences():
    rows, (first, second) = models(30, 6)
    test = test_set.make_test(rows, 2)
    reference, result = score_test(first, test, FITTED), score_test(second, test, FITTED)
    alone = accuracy.figures(test, reference, 500, 0)
    found = accuracy.figures(test, result, 500, 0, reference)
    for key in accuracy.KEYS:
        assert 0 <= found[f"{key}_ci"]["low"] < found[key] < found[f"{key}_ci"]["high"] <= 1
        assert found["min_cllr"] < found["cllr"] and found["min_dcf_0.01"] <= found["act_dcf_0.01"]
        difference = found["difference"][key]
        assert difference["value"] == pytest.approx(found[key] - alone[key], abs=2e-6)
        # Paired: narrower than the interval of the metric itself.
        width = found[f"{key}_ci"]["high"] - found[f"{key}_ci"]["low"]
        assert difference["high"] - difference["low"] < 0.8 * width
    assert accuracy.figures(test, result, 500, 1)["eer_ci"] != found["eer_ci"]


def test_a_figure_that_needs_more_trials_is_refused():
    rows, (first, second) = models(30, 6)
    test = test_set.make_test(rows, 2)
    reference, result = score_test(first, test, FITTED), score_test(second, test, FITTED)
    found = accuracy.figures(test, result, 100, 0, reference)
    assert found["refused"] == {"fnmr_at_fmr_0.001": "3,480 non-target trials; 30,000 are needed"}
    assert not any(key.startswith("fnmr_at_fmr_0.001") for key in (*found, *found["difference"]))
    assert (
        0 < found["fnmr_at_fmr_0.01_ci"]["low"] < found["fnmr_at_fmr_0.01"]
        and "fnmr_at_fmr_0.01" in found["difference"]
    )
    identified = found["identification"]
    assert identified["refused"] == {"fnir": "120 probes; 300 are needed for an FPIR of 0.01"}
    assert [set(gallery) for gallery in identified["galleries"].values()] == [
        {"size", "top1", "top1_ci", "difference"}
    ] * 2


def test_identification_by_gallery_and_by_rank():
    rows, (first, second) = models(40, 10)
    test = test_set.make_test(rows, 1)
    reference, result = score_test(first, test, FITTED), score_test(second, test, FITTED)
    found = accuracy.figures(test, result, 200, 0, reference)
    identified = found["identification"]
    assert [gallery["size"] for gallery in identified["galleries"].values()] == [10, 39]
    small, large = identified["galleries"].values()
    assert small["top1"] > large["top1"] > found["top1_accuracy"] and small["fnir"] < large["fnir"]
    assert 1 - small["fnir"] <= small["top1"]  # who is returned has the best score
    alone = accuracy.figures(test, reference, 200, 0)["identification"]["galleries"]["39"]
    for key in ("top1", "fnir"):
        assert large[f"{key}_ci"]["low"] < large[key] < large[f"{key}_ci"]["high"]
        assert large["difference"][key]["value"] == pytest.approx(large[key] - alone[key], abs=2e-6)
    shares = [point["share"] for point in identified["cmc"].values()]
    assert shares == sorted(shares) and shares[0] == found["top1_accuracy"]
    ranks = np.array([rank for _, _, rank in result.ranks["all"]])
    assert shares == pytest.approx([np.mean(ranks <= point["rank"]) for point in identified["cmc"].values()], abs=1e-6)


def test_of_many_searches_every_nth_is_made(monkeypatch):
    rows, (first, _) = models(40, 21)
    test = test_set.make_test(rows, 1)
    result = score_test(first, test, FITTED)
    everything = accuracy.figures(test, result, 100, 0)["identification"]
    monkeypatch.setattr(test_set, "MOST_SEARCHED", 40 * 400)
    half = accuracy.figures(test, score_test(first, test, FITTED), 100, 0)["identification"]
    assert (everything["searches"], half["searches"]) == (800, 400) and half["cmc"] == everything["cmc"]
    for gallery, of_half in zip(everything["galleries"].values(), half["galleries"].values(), strict=True):
        assert of_half["fnir"] != gallery["fnir"] == pytest.approx(of_half["fnir"], abs=0.05)


def test_noninferior_is_below_the_margin():
    rows, (first, second) = models(30, 6)
    test = test_set.make_test(rows, 2)
    reference, result = score_test(first, test, FITTED), score_test(second, test, FITTED)
    high = accuracy.figures(test, result, 200, 0, reference)["difference"]["eer"]["high"]
    for margin, verdict in ((high, 0), (high + 1e-6, 1)):
        assert accuracy.figures(test, result, 200, 0, reference, margin)["noninferior"] == verdict


def test_perfect_model():
    rows, _ = models(8, 4)
    test = test_set.make_test(rows, 1)
    found = accuracy.figures(test, score_test(np.repeat(np.eye(8), 4, axis=0), test, FITTED), 100, 0)
    assert (found["top1_accuracy"], found["eer"], found["min_dcf_0.01"], found["min_cllr"]) == (1, 0, 0, 0)
    assert found["eer_ci"] == {"low": 0, "high": 0}


def test_collapsed_model_identifies_nobody():
    rows, _ = models(8, 4)
    test = test_set.make_test(rows, 1)
    found = accuracy.figures(test, score_test(np.ones((32, 5)), test, FITTED), 100, 0)
    assert (found["top1_accuracy"], found["eer"], found["min_dcf_0.05"], found["min_cllr"]) == (0, 0.5, 1, 1)
