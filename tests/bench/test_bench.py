"""The benchmark as a user runs it, on a small configuration of the real thing."""

import json
import shutil

import pytest

pytest.importorskip("openvino", reason="requirements-bench.txt is not installed")
pytest.importorskip("nncf", reason="requirements-bench.txt is not installed")

from bench import extraction, plot, scaling, table, timing
from bench.models import ours
from tests.workspace import ROOT, python, workspace

NAMES = [
    "speechbrain",
    "quantize_dynamic",
    "onnxruntime",
    "openvino",
    "quantize_static",
    "nncf",
    "fp32-onnxruntime",
    "fp32-openvino",
    "ptq-onnxruntime",
    "ptq-openvino",
]


@pytest.fixture(scope="module")
def made(pipeline):
    options = "--rounds 3 --threads 1 --seconds 1 --batch 2 --skip-scaling --only"
    output = python(pipeline[0], "-m", "bench", *options.split(), *NAMES[1:])
    assert output.returncode == 0, output.stderr
    return pipeline[0], json.loads((pipeline[0] / "bench/results.json").read_text()), output.stdout


def test_results_have_every_model_with_time_and_accuracy(made):
    _, results, _ = made
    (setting,) = results["settings"]
    assert (setting["threads"], setting["seconds"], setting["batch"], setting["rounds"]) == (1, 1, 2, 3)
    assert list(setting["models"]) == list(results["models"]) == NAMES
    for taken in setting["models"].values():
        assert 0 < taken["low_ms"] <= taken["median_ms"] <= taken["high_ms"]
        assert taken["speedup_ci"]["low"] <= taken["speedup"] <= taken["speedup_ci"]["high"]
    assert setting["models"]["speechbrain"]["speedup"] == 1
    for model in results["models"].values():
        assert model["eer_ci"]["low"] <= model["eer"] <= model["eer_ci"]["high"]
        assert model["title"] and model["size_mb"] > 0
    assert results["conditions"]["cpu"]["model"]
    assert {"openvino", "nncf", "onnxruntime", "torch"} <= set(results["conditions"]["versions"])


def test_float_models_are_the_same_encoder_and_integer_ones_are_not_far(made):
    _, results, _ = made
    cosines = {name: model["cosine_min"] for name, model in results["models"].items()}
    for name in ("speechbrain", "quantize_dynamic", "onnxruntime", "openvino", "fp32-onnxruntime", "fp32-openvino"):
        assert cosines[name] > 0.9999, name
    for name in ("quantize_static", "nncf", "ptq-onnxruntime", "ptq-openvino"):
        assert 0.8 < cosines[name] < 0.99999, name
    sizes = {name: model["size_mb"] for name, model in results["models"].items()}
    assert sizes["quantize_dynamic"] == pytest.approx(sizes["speechbrain"], rel=0.01)
    assert max(sizes["quantize_static"], sizes["ptq-onnxruntime"]) < 0.4 * sizes["speechbrain"]


def test_terminal_table_is_aligned_and_the_plot_is_there(made):
    folder, results, printed = made
    assert printed.rstrip() == table.text(results)
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) == len(NAMES) + 2 and len({len(line) for line in lines}) == 1
    assert "1 thread, 1 s, batch 2: 3 rounds" in printed
    assert "<svg" in (folder / "bench/results.svg").read_text()
    assert not (folder / "bench/scaling.svg").exists()


def test_scaling_and_extraction(made, monkeypatch, tmp_path):
    folder, results, _ = made
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    models = {name: ours(name) for name in ("fp32-onnxruntime", "ptq-openvino")}
    found = scaling.measure(models, 3, 1, 0, lengths=(0.5, 2), batches=(1,), extractions=(("ptq", 2, 70),))
    assert [point["seconds"] for point in found["lengths"]] == [0.5, 2]
    for name in models:
        first, second = (point["models"][name]["median_ms"] for point in found["lengths"])
        assert found["worst_step"][name] == {"seconds": pytest.approx(second / first / 4), "batch": None}
    (extracted,) = found["extraction"]
    assert extracted["utterances"] == 70  # more than the folder has
    assert extracted["utterances_per_second"] == pytest.approx(70 / extracted["seconds"])
    assert extracted["peak_mb"] is None or 20 < extracted["peak_mb"] < 1000
    results = {**results, "scaling": found}
    plot.scaling(tmp_path / "scaling.svg", results)
    assert "<svg" in (tmp_path / "scaling.svg").read_text() and "ptq.onnx" in table.text(results)


def test_rounds_fit_into_the_budget(made, monkeypatch):
    monkeypatch.chdir(made[0])
    models = {"fp32-onnxruntime": ours("fp32-onnxruntime")}
    (setting,) = timing.measure(models, [(1, 1)], 1, 50, 0, 0)
    assert setting["rounds"] == timing.FEWEST


def test_what_is_missing_or_wrong_is_said_in_a_line(made, tmp_path, monkeypatch, called):
    monkeypatch.chdir(workspace(tmp_path / "empty", {}))
    status, _, error = called("bench.__main__")
    assert status == 1 and "manifest.csv: no such file" in error
    shutil.copytree(made[0] / "data", "data")
    status, _, error = called("bench.__main__", "--only", "qat-openvino", "--skip-scaling")
    assert (status, error) == (1, "error: models/qat.onnx: no such file; run the stage qat_search, or dvc repro\n")


def test_an_extraction_that_fails_is_an_error(made, monkeypatch):
    from src.runtime.errors import InputError

    monkeypatch.chdir(made[0])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(InputError, match="missing.onnx"):
        extraction.measure("models/missing.onnx", 1, 1)
