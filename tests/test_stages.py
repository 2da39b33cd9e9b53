"""Every stage, run as a user runs it, on a small configuration of the real thing."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import soundfile

from src import qat_search
from src.common import layout, params
from src.data import manifest
from tests.workspace import ROOT, STAGES, programs, read, recomputed, workspace

KEYS = ("top1_accuracy", "eer", "min_dcf_0.01", "min_dcf_0.05", "cllr", "min_cllr")
COSTS = ("gmacs", "gflops", "int8_mac_share", "params_million", "size_mb")


def test_metrics_have_just_the_keys_of_the_contract_rounded(pipeline):
    folder, _ = pipeline
    accuracy = ["top1_accuracy", "eer", "min_dcf_0.01", "cllr"]
    int8 = [*accuracy, "eer_difference", "eer_difference_high", "gmacs", "int8_mac_share", "size_mb"]
    for stage, keys in (
        ("baseline", accuracy),
        ("profile", ["gmacs", "gflops", "params_million", "size_mb"]),
        ("ptq", int8),
        ("qat_search", int8),
    ):
        shown, full = json.loads((folder / layout.metrics(stage)).read_text()), read(folder, stage)
        assert list(shown) == keys
        if "difference" in full:
            ends = {"eer_difference": "value", "eer_difference_high": "high"}
            full |= {key: full["difference"]["eer"][end] for key, end in ends.items()}
        assert all(shown[key] == pytest.approx(full[key], abs=0.0051) for key in keys)
        assert all(len(f"{value!r}".partition(".")[2]) <= 4 for value in shown.values())


def test_details_have_every_key_of_the_contract(pipeline):
    folder, _ = pipeline
    for name in ("baseline", "ptq", "qat_search"):
        details = read(folder, name)
        for key in KEYS:
            assert 0 <= details[f"{key}_ci"]["low"] <= details[key] <= details[f"{key}_ci"]["high"]
    for name in ("profile", "ptq", "qat_search"):
        details = read(folder, name)
        assert all(isinstance(details[key], float) for key in COSTS)
        assert details["gflops"] == pytest.approx(2 * details["gmacs"])
        assert "_ms" not in (folder / layout.metrics(name)).read_text() + (folder / layout.details(name)).read_text()
    for name, models in (("fp32", ["speechbrain", "fp32"]), ("ptq", ["fp32", "ptq"]), ("qat", ["fp32", "qat"])):
        assert list(json.loads((folder / layout.latency(name)).read_text())["models"]) == models


def test_everything_is_quantised_and_the_file_is_small(pipeline):
    folder, _ = pipeline
    for name, report in (("ptq", "ptq"), ("qat", "qat_search")):
        found = read(folder, report)
        assert found["int8_mac_share"] >= 0.99
        size, whole = ((folder / f"models/{model}.onnx").stat().st_size for model in (name, "fp32"))
        assert size <= 0.30 * whole
        assert found["size_mb"] == pytest.approx(size / 1e6)


def test_ten_lines_compute_every_accuracy_figure_again(pipeline):
    """The program of the documentation, from the scores and ranks alone, against metrics/*.json."""
    folder, _ = pipeline
    program = programs("docs/evaluation.md")[0]
    assert len(program.strip().splitlines()) == 10 and "src" not in program
    found = recomputed(program, folder)
    stated = {"fp32": read(folder, "baseline"), "ptq": read(folder, "ptq"), "qat": read(folder, "qat_search")}
    stated["logmel"] = stated["fp32"]["logmel"]
    keys = ("top1_accuracy", "eer", "min_dcf_0.01", "min_dcf_0.05")
    for name, figures in stated.items():
        assert found[name] == pytest.approx([figures[key] for key in ("trials", "target_trials", *keys)], abs=1e-6)
    for name in ("ptq", "qat"):
        assert [own - other for own, other in zip(found[name][2:], found["fp32"][2:])] == pytest.approx(
            [stated[name]["difference"][key]["value"] for key in keys], abs=2e-6
        )


def test_ten_more_lines_compute_cllr_again(pipeline):
    folder, _ = pipeline
    program = programs("docs/evaluation.md")[2]
    assert len(program.strip().splitlines()) == 10 and "src" not in program
    found = recomputed(program, folder)
    for name, stage in (("fp32", "baseline"), ("ptq", "ptq"), ("qat", "qat_search")):
        stated = read(folder, stage)
        assert found[name] == pytest.approx([stated["cllr"], stated["min_cllr"]], abs=1e-6)


def test_det_curve_is_that_of_the_program_in_the_documentation(pipeline, monkeypatch):
    folder, _ = pipeline
    monkeypatch.chdir(folder)
    with open("metrics/det.csv") as file:
        rows = list(csv.DictReader(file))
    for name in ("fp32", "ptq", "qat"):
        variables = {}
        exec(programs("docs/evaluation.md")[0].replace("*.csv", f"{name}.csv"), variables)
        points = {(f"{x:.6f}", f"{y:.6f}") for x, y in zip(variables["false_alarm"], variables["miss"])}
        drawn = [(row["false_alarm_rate"], row["miss_rate"]) for row in rows if row["model"] == name]
        assert len(drawn) > 5 and set(drawn) <= points
        assert all(0 <= float(row["miss_low"]) <= float(row["miss_high"]) <= 1 for row in rows)


def test_dvc_draws_the_same_curves(pipeline, tmp_path):
    """Every plot of dvc.yaml with its template, filled with all rows of its CSV and no field that it has not."""
    for path in (ROOT / "dvc.yaml", ROOT / ".dvc/plots", pipeline[0] / "metrics"):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / path.relative_to(ROOT if path.is_relative_to(ROOT) else pipeline[0]))
    dvc = [sys.executable, "-m", "dvc"]
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    output = subprocess.run([*dvc, "plots", "show", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    plots = json.loads(output.stdout)["data"]
    details = [str(layout.details(stage)) for stage in ("baseline", "profile", "ptq", "qat_search")]
    assert [plots.pop(path) for path in details] == [[]] * len(details)  # nothing to draw
    assert set(plots) == {
        f"metrics/{name}.csv" for name in ("det", "macs", "trials", "frontier", "spectra", "breakdown", "sensitivity")
    }
    for path, (plot,) in plots.items():
        with open(tmp_path / path) as file:
            rows = list(csv.DictReader(file))
        values = plot["content"]["data"].pop("values")
        assert [{key: value[key] for key in row} for value, row in zip(values, rows, strict=True)] == rows
        spec = json.dumps(plot["content"])
        made = set(re.findall(r'"as": "(\w+)"', spec))
        fields = set(re.findall(r'"field": "(\w+)"', spec)) | set(re.findall(r"datum\.([a-z]\w+)", spec))
        assert fields - made - {"value"} <= set(values[0]) and "DVC_METRIC" not in spec


def test_models_take_any_batch_and_length_and_stay_near_fp32(pipeline):
    folder, _ = pipeline
    models = {name: onnxruntime.InferenceSession(folder / f"models/{name}.onnx") for name in ("fp32", "ptq", "qat")}
    waveform = (0.1 * np.random.default_rng(0).standard_normal((2, 24_000))).astype("float32")
    whole = {name: model.run(["embedding"], {"waveform": waveform})[0] for name, model in models.items()}
    assert all(embedding.shape == (2, 192) for embedding in whole.values())
    for name in ("ptq", "qat"):
        cosines = (whole[name] * whole["fp32"]).sum(1) / np.linalg.norm(whole[name], axis=1)
        assert (cosines / np.linalg.norm(whole["fp32"], axis=1) > 0.98).all()
        assert not np.array_equal(whole[name], whole["fp32"])


def test_trials_are_all_there_and_the_chosen_one_is_among_them(pipeline):
    folder, _ = pipeline
    with open(folder / "metrics/trials.csv") as file:
        rows = list(csv.DictReader(file))
    found = read(folder, "qat_search")
    assert len(rows) == found["n_trials"] == 2
    with open(folder / "metrics/frontier.csv") as file:
        rows += csv.DictReader(file)
    passed = [row for row in rows if row["noninferior"] == "1"]
    assert found["passed_validation"] == bool(passed)
    if passed:
        cheapest = min(passed, key=lambda row: float(row["gmacs"]))
        assert int(cheapest["trial"]) == found["chosen"]["trial"]
        assert found["gmacs"] == pytest.approx(float(cheapest["gmacs"]), rel=1e-3)
        for name, value in found["chosen"].items():
            assert value == pytest.approx(float(cheapest[name]), rel=1e-5)


def test_fine_tuning_hears_all_that_nobody_judges_on(pipeline, monkeypatch):
    monkeypatch.chdir(pipeline[0])
    rows = manifest.read()
    waveforms, speakers = qat_search._setup(params.load(), rows, "cpu").finetune
    heard = [row for row in rows if row.split in ("calibration", "finetune")]
    assert sorted(speakers) == sorted(row.speaker for row in heard)
    assert sorted(map(len, waveforms)) == sorted(round(16_000 * row.seconds) for row in heard)


def test_breakdown_has_every_model_in_every_condition(pipeline):
    with open(pipeline[0] / "metrics/breakdown.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["condition"], row["level"]) for row in rows[::3]] == [
        ("seconds", "1"),
        ("seconds", "full"),
        ("enrolment_seconds", "1"),
        ("enrolment_seconds", "full"),
        ("snr", "clean"),
        ("snr", "5"),
        ("channel", "clean"),
        ("channel", "gsm"),
        ("channel_both", "clean"),
        ("channel_both", "gsm"),
        ("sex", "same"),
    ]  # the voices of these few test speakers are all men's
    for row in rows:
        assert 0 <= float(row["low"]) <= float(row["eer"]) <= float(row["high"]) <= 1
        assert (row["difference"] == "") == (row["model"] == "fp32")
    with open(pipeline[0] / "metrics/sensitivity.csv") as file:
        groups = [row["group"] for row in csv.DictReader(file)]
    assert groups == ["layer0", "blocks.1", "blocks.2", "mfa", "attention", "fc", "all"]


def test_logs_are_quiet_and_the_report_is_there(pipeline):
    folder, errors = pipeline
    for stage, error in errors.items():
        assert "it/s" not in error and "Warning" not in error, (stage, error)
    assert (folder / "metrics/report.html").stat().st_size > 10_000
    assert "| INT8 QAT " in (folder / "metrics/report.md").read_text()


def test_the_program_in_the_readme_runs(pipeline):
    folder, _ = pipeline
    (program,) = programs("README.md")
    for name, audio in zip(("enrol.wav", "test.wav"), sorted((folder / "data/audio").iterdir())):
        samples, rate = soundfile.read(audio)
        soundfile.write(folder / name, samples, rate)
    output = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    assert -1 <= float(output.stdout) <= 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_without_its_input_says_so_and_leaves_nothing(stage, tmp_path, monkeypatch, called):
    folder = workspace(tmp_path / "run", {"data": {"source": "folder", "path": "nowhere"}})
    monkeypatch.chdir(folder)
    before = {path for path in folder.rglob("*") if path.is_file()}
    status, _, error = called(f"src.{stage}")
    assert status == 1 and error.startswith("error: ") and error.count("\n") == 1
    assert {path for path in folder.rglob("*") if path.is_file()} == before
