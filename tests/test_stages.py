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

from src.common import layout, params
from src.data import manifest
from src.evaluate import accuracy, metrics, result, test_set
from src.evaluate.scores import read_scores
from src.runtime import calibration
from tests.workspace import ROOT, SMALL, programs, read, recomputed, run, workspace

STAGES = ("link_data", "sample_data", "baseline", "profile", "ptq", "qat_search", "breakdown", "report", "release")
KEYS = ("top1_accuracy", "eer", "min_dcf_0.01", "min_dcf_0.05", "cllr", "min_cllr")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = workspace(tmp_path_factory.mktemp("pipeline") / "run", SMALL)
    outputs = {}
    for stage in STAGES:
        outputs[stage] = run(folder, stage)
        assert outputs[stage].returncode == 0, outputs[stage].stderr
    return folder, outputs


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
    for name, report in (("fp32", "baseline"), ("ptq", "ptq"), ("qat", "qat_search"), ("logmel", "baseline")):
        with open(folder / f"metrics/scores/{name}.csv") as file:
            rows = list(csv.DictReader(file))
        scores = np.array([float(row["score"]) for row in rows])
        targets = np.array([row["target"] == "1" for row in rows])
        stated = read(folder, report)
        stated = stated["logmel"] if name == "logmel" else stated
        fitted = stated["calibration"]
        found = metrics.detection(scores, targets, llrs=fitted["scale"] * scores + fitted["offset"])
        for key in KEYS[1:]:
            assert found[key] == pytest.approx(stated[key], abs=1e-6)
        assert (len(rows), targets.sum()) == (stated["trials"], stated["target_trials"])


def test_ten_lines_compute_every_accuracy_figure_again(pipeline):
    """The program of the documentation, from the scores and ranks alone, against metrics/*.json and report.md."""
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
    table = report_table(folder)
    for key, row, scale in (("top-1", 2, 100), ("EER", 3, 100), ("minDCF 0.01", 4, 1), ("minDCF 0.05", 5, 1)):
        levels, changes = (table[key + unit] for unit in ((", %", ", points") if scale == 100 else ("", " (2)")))
        for name, level, change in zip(("fp32", "ptq", "qat"), levels, changes, strict=True):
            assert_printed(level, found[name][row], scale)
            if name != "fp32":
                assert_printed(change, found[name][row] - found["fp32"][row], scale)
    trials, targets = (int(number) for number in found["fp32"][:2])
    assert f"{trials:,} trials, {targets:,} target trials" in (folder / "metrics/report.md").read_text()


def test_ten_more_lines_compute_cllr_again(pipeline):
    folder, _ = pipeline
    program = programs("docs/evaluation.md")[2]
    assert len(program.strip().splitlines()) == 10 and "src" not in program
    found = recomputed(program, folder)
    for name, stage in (("fp32", "baseline"), ("ptq", "ptq"), ("qat", "qat_search")):
        stated = read(folder, stage)
        assert found[name] == pytest.approx([stated["cllr"], stated["min_cllr"]], abs=1e-6)


def report_table(folder):
    """{label: the models' cells} of the table of all figures; a label's second row gets ` (2)`."""
    lines = (folder / "metrics/report.md").read_text().split("## All figures")[1].split("\n\n")[1].splitlines()
    found = {}
    for label, *cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]):
        found[f"{label} (2)" if label in found else label] = cells
    return found


def assert_printed(cell, value, scale):
    """A cell begins with the value, times the scale and rounded to the decimals that it shows."""
    text = cell.split()[0].replace("\N{MINUS SIGN}", "-")
    decimals = len(text.partition(".")[2])
    assert float(text) == pytest.approx(scale * value, abs=0.5 * 10**-decimals + 1e-6 * scale)


def test_intervals_can_be_computed_again_from_scores_and_ranks(pipeline, monkeypatch):
    folder, _ = pipeline
    monkeypatch.chdir(folder)
    config = params.load()
    test = test_set.load(manifest.read(), config)
    results = {}
    for name in layout.MODELS:
        with open(layout.ranks(name)) as file:
            lines = [(row["test"], row["speaker"], int(row["rank"])) for row in csv.DictReader(file)]
        scores = read_scores(layout.scores(name), test.verification)
        results[name] = result.Result(scores, {"all": lines}, calibration.read(layout.calibration(name)))
    for name, stage in (("ptq", "ptq"), ("qat", "qat_search")):
        found = accuracy.figures(
            test, results[name], config.evaluate.bootstrap, config.seed, results["fp32"], config.evaluate.margins.eer
        )
        stated = read(folder, stage)
        assert found == {key: stated[key] for key in found}


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
        f"metrics/{name}.csv" for name in ("det", "macs", "trials", "pareto", "spectra", "breakdown", "sensitivity")
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
    passed = [row for row in rows if row["noninferior"] == "1"]
    assert found["passed_validation"] == bool(passed)
    if passed:
        (chosen,) = [row for row in rows if int(row["trial"]) == found["chosen"]["trial"]]
        assert float(chosen["gmacs"]) == min(float(row["gmacs"]) for row in passed)
        assert found["gmacs"] == pytest.approx(float(chosen["gmacs"]), rel=1e-3)
        for name, value in found["chosen"].items():
            assert value == pytest.approx(float(chosen[name]), rel=1e-5)
    with open(folder / "metrics/pareto.csv") as file:
        assert list(csv.DictReader(file)) == [row for row in rows if row["front"] == "1"]
    again = run(folder, "qat_search")
    assert again.returncode == 0 and again.stdout.startswith("2 of 2 trials were finished before\n")
    assert read(folder, "qat_search") == found


def test_timings_stay_out_of_the_metrics_and_are_paired(pipeline):
    folder, _ = pipeline
    for name, models in (("fp32", ["speechbrain", "fp32"]), ("ptq", ["fp32", "ptq"]), ("qat", ["fp32", "qat"])):
        found = json.loads((folder / layout.latency(name)).read_text())["models"]
        assert list(found) == models and all(model["median_ms"] > 0 for model in found.values())
    for name in ("baseline", "profile", "ptq", "qat_search"):
        assert "_ms" not in (folder / layout.metrics(name)).read_text() + (folder / layout.details(name)).read_text()


def test_breakdown_has_every_model_in_every_condition(pipeline):
    with open(pipeline[0] / "metrics/breakdown.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["condition"], row["level"]) for row in rows[::3]] == [
        ("seconds", "1"),
        ("seconds", "full"),
        ("snr", "clean"),
        ("snr", "5"),
        ("sex", "same"),
    ]  # the voices of these few test speakers are all men's
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
    (program,) = programs("README.md")
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
    for name in (
        "data/manifest.csv",
        "metrics/baseline.json",
        "metrics/ptq.json",
        "metrics/details/ptq.json",
        "models/fp32.onnx",
        "models/ptq.onnx",
        "metrics/scores/ptq.csv",
    ):
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
    assert output.returncode == 1 and "lobes.models.Xvector" in output.stderr and not (folder / "metrics").exists()
    assert len(output.stderr.splitlines()) == 1
