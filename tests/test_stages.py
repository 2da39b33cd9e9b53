"""Every stage, run as a user runs it, on a small configuration of the real thing."""
import csv
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import soundfile

from src.evaluate import metrics
from tests.workspace import ROOT, SMALL, read, run, workspace

STAGES = ("sample_data", "baseline", "profile", "ptq", "qat_search", "breakdown", "report")
KEYS = ("top1_accuracy", "eer", "min_dcf_0.01", "min_dcf_0.05", "cllr", "min_cllr")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = workspace(tmp_path_factory.mktemp("pipeline") / "run", SMALL)
    outputs = {}
    for stage in STAGES:
        outputs[stage] = run(folder, stage)
        assert outputs[stage].returncode == 0, outputs[stage].stderr
    return folder, outputs


def test_metrics_have_every_key_of_the_contract(pipeline):
    folder, _ = pipeline
    for name in ("baseline", "ptq", "qat_search"):
        found = read(folder, name)
        for key in KEYS:
            assert 0 <= found[f"{key}_ci"]["low"] <= found[key] <= found[f"{key}_ci"]["high"]
    for name in ("profile", "ptq", "qat_search"):
        found = read(folder, name)
        for key in ("gmacs", "gflops", "int8_mac_share", "params_million", "size_mb"):
            assert isinstance(found[key], float)
        assert found["gflops"] == pytest.approx(2 * found["gmacs"])


def test_everything_is_quantised_and_the_file_is_small(pipeline):
    folder, _ = pipeline
    for name, report in (("ptq", "ptq"), ("qat", "qat_search")):
        found = read(folder, report)
        assert found["int8_mac_share"] >= 0.99
        size, whole = ((folder / f"models/{model}.onnx").stat().st_size for model in (name, "fp32"))
        assert size <= 0.30 * whole
        assert found["size_mb"] == pytest.approx(size / 1e6)


def test_figures_can_be_computed_again_from_the_scores(pipeline):
    folder, _ = pipeline
    for name, report in (
        ("fp32", "baseline"), ("ptq", "ptq"), ("qat", "qat_search"), ("trivial", "baseline")
    ):
        with open(folder / f"metrics/scores/{name}.csv") as file:
            rows = list(csv.DictReader(file))
        scores = np.array([float(row["score"]) for row in rows])
        targets = np.array([row["target"] == "1" for row in rows])
        stated = read(folder, report)
        stated = stated["trivial"] if name == "trivial" else stated
        fitted = stated["calibration"]
        found = metrics.detection(scores, targets, llrs=fitted["scale"] * scores + fitted["offset"])
        for key in KEYS[1:]:
            assert found[key] == pytest.approx(stated[key], abs=1e-6)
        assert (len(rows), targets.sum()) == (stated["trials"], stated["target_trials"])


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


def test_trials_are_all_there_and_the_best_is_the_one_reported(pipeline):
    folder, _ = pipeline
    with open(folder / "metrics/trials.csv") as file:
        rows = list(csv.DictReader(file))
    found = read(folder, "qat_search")
    assert len(rows) == found["n_trials"] == 2
    assert found["best"]["objective"] == min(float(row["objective"]) for row in rows)
    assert not (folder / ".optuna").exists()


def test_timings_stay_out_of_the_metrics_and_are_paired(pipeline):
    folder, _ = pipeline
    for name, models in (
        ("latency", ["speechbrain", "fp32"]), ("ptq_latency", ["fp32", "ptq"]), ("qat_search_latency", ["fp32", "qat"])
    ):
        found = read(folder, name)["models"]
        assert list(found) == models and all(model["median_ms"] > 0 for model in found.values())
    for name in ("baseline", "profile", "ptq", "qat_search"):
        assert "_ms" not in (folder / f"metrics/{name}.json").read_text()


def test_breakdown_has_every_model_in_every_condition(pipeline):
    with open(pipeline[0] / "metrics/breakdown.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["condition"], row["level"]) for row in rows[::3]] == [
        ("seconds", "1"), ("seconds", "full"), ("snr", "clean"), ("snr", "5")]
    for row in rows:
        assert 0 <= float(row["low"]) <= float(row["eer"]) <= float(row["high"]) <= 1
        assert (row["difference"] == "") == (row["model"] == "fp32")
    with open(pipeline[0] / "metrics/sensitivity.csv") as file:
        groups = [row["group"] for row in csv.DictReader(file)]
    assert groups == ["layer0", "blocks.1", "blocks.2", "blocks.3", "mfa", "attention", "fc", "all"]


def test_logs_are_quiet_and_the_report_is_there(pipeline):
    folder, outputs = pipeline
    for stage, output in outputs.items():
        assert "it/s" not in output.stderr and "Warning" not in output.stderr, (stage, output.stderr)
    assert (folder / "metrics/report.html").stat().st_size > 10_000
    assert "| INT8 QAT " in (folder / "metrics/report.md").read_text()


def test_the_program_in_the_readme_runs(pipeline):
    folder, _ = pipeline
    program = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    for name, audio in zip(("enrol.wav", "test.wav"), sorted((folder / "data/audio").iterdir())):
        samples, rate = soundfile.read(audio)
        soundfile.write(folder / name, samples, rate)
    output = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    assert -1 <= float(output.stdout) <= 1


def test_a_second_run_gives_the_same_bytes(pipeline, tmp_path):
    folder, _ = pipeline
    again = workspace(tmp_path / "again", SMALL)
    for stage in ("sample_data", "baseline", "ptq"):
        assert run(again, stage).returncode == 0
    for name in ("data/manifest.csv", "metrics/baseline.json", "metrics/ptq.json", "models/fp32.onnx",
                 "models/ptq.onnx", "metrics/scores/ptq.csv"):
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_without_its_input_says_so_and_leaves_nothing(stage, tmp_path):
    folder = workspace(tmp_path / "run", {"data": {"source": "folder", "path": "nowhere"}})
    before = {path for path in folder.rglob("*") if path.is_file()}
    output = run(folder, stage)
    assert output.returncode == 1
    assert output.stderr.startswith("error: ") and len(output.stderr.splitlines()) == 1
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_an_encoder_that_is_no_ecapa_tdnn_is_refused(pipeline, tmp_path):
    folder = workspace(tmp_path / "run", {})
    shutil.copytree(pipeline[0] / "data", folder / "data")
    path = folder / "models/pretrained/ecapa-mini/hyperparams.yaml"
    path.write_text(path.read_text().replace("ECAPA_TDNN.ECAPA_TDNN", "Xvector.Xvector"))
    output = run(folder, "baseline")
    assert output.returncode == 1 and "not an ECAPA-TDNN" in output.stderr and not (folder / "metrics").exists()
