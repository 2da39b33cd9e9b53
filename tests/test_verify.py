"""The model on a pair of recordings, as a user runs it and by what it computes."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import onnxruntime
import pytest
import soundfile

from src import verify
from src.common.files import sha256
from src.evaluate import score_calibration
from src.runtime import calibration
from src.runtime.errors import InputError
from tests.evaluate.conftest import save_model
from tests.workspace import ROOT

FITTED = calibration.Calibration(8.0, -3.0, 0.5)
HEAVY = ("torch", "scipy", "speechbrain", "pandas", "pydantic", "onnx", "soxr", "tqdm", "yaml", "matplotlib")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a model, its calibration and four recordings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    save_model("models/qat.onnx")
    score_calibration.write("metrics/calibration/qat.json", FITTED)
    for seed, name in enumerate(("a.wav", "b.wav", "c.flac", "d.wav")):
        rng = np.random.default_rng(seed)
        sound = np.convolve(rng.normal(size=8000 + 100 * seed), rng.normal(size=9), "same")
        soundfile.write(name, 0.5 * sound / np.abs(sound).max(), 16_000)
    return tmp_path


def run(*arguments, module="verify"):
    return subprocess.run(
        [sys.executable, "-m", f"src.{module}", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def by_hand(*paths):
    model = onnxruntime.InferenceSession("models/qat.onnx")
    found = [model.run(None, {"waveform": soundfile.read(path, dtype="float32")[0][None]})[0][0] for path in paths]
    unit = [each.astype(float) / np.linalg.norm(each) for each in found]
    enrolled = sum(unit[:-1])
    return enrolled @ unit[-1] / np.linalg.norm(enrolled)


def test_score_is_the_cosine_to_the_mean_of_the_enrolments(place):
    for paths in (("a.wav", "b.wav"), ("a.wav", "b.wav", "c.flac", "d.wav")):
        found, _ = verify.verify(paths[:-1], paths[-1], "models/qat.onnx")
        assert found["score"] == pytest.approx(by_hand(*paths), abs=2e-6)
        assert found["log_likelihood_ratio"] == pytest.approx(8 * found["score"] - 3, abs=1e-4)
        assert (found["threshold"], found["decision"]) == (
            0.5,
            "same speaker" if found["score"] >= 0.5 else "different speakers",
        )


def test_exit_status_is_the_decision(place):
    score = by_hand("a.wav", "b.wav")
    for threshold, status, decision in ((score - 0.01, 0, "same speaker"), (score + 0.01, 1, "different speakers")):
        output = run("a.wav", "b.wav", "--threshold", str(threshold))
        assert output.returncode == status and decision in output.stdout and "ms" in output.stdout
    assert run("a.wav", "a.wav").returncode == 0
    output = run("a.wav", "nowhere.wav")
    assert output.returncode == 2 and output.stderr == "error: nowhere.wav: no such file\n"


def test_json(place):
    output = run("a.wav", "c.flac", "b.wav", "--json")
    found = json.loads(output.stdout)
    assert found["enrol"] == ["a.wav", "c.flac"] and found["test"] == "b.wav"
    assert found["score"] == pytest.approx(by_hand("a.wav", "c.flac", "b.wav"), abs=2e-6)
    assert output.returncode == (0 if found["score"] >= found["threshold"] else 1)
    assert found["seconds"]["audio"] == pytest.approx((8000 + 8200 + 8100) / 16_000, abs=1e-3)
    assert found["seconds"]["load"] > 0 and found["seconds"]["embed"] > 0


def test_the_threshold_is_that_of_the_file_beside_the_model(place):
    score_calibration.write("models/config.json", calibration.Calibration(1.0, 0.0, 0.9))
    content = json.loads((place / "models/config.json").read_text())
    checksum = sha256(place / "models/qat.onnx")
    (place / "models/config.json").write_text(json.dumps({**content, "sha256": checksum}))
    found, _ = verify.verify(["a.wav"], "b.wav", "models/qat.onnx")
    assert found["threshold"] == 0.9 and found["threshold_from"].endswith("models/config.json")
    (place / "models/config.json").write_text(json.dumps({**content, "sha256": "0"}))
    found, status = verify.verify(["a.wav"], "b.wav", "models/qat.onnx")
    assert (found["decision"], status) == (None, 2) and found["threshold_from"].endswith("is about another model")


def test_without_a_threshold_there_is_a_score_and_no_decision(place):
    (place / "metrics/calibration/qat.json").unlink()
    output = run("a.wav", "b.wav")
    assert output.returncode == 2 and "score" in output.stdout and "no threshold is known" in output.stdout
    assert "likelihood" not in output.stdout
    score_calibration.write("metrics/calibration/qat.json", calibration.Calibration(8.0, -3.0, 0.5, "s-norm"))
    output = run("a.wav", "b.wav")
    assert output.returncode == 2 and "after s-norm" in output.stdout


def test_other_rates_and_channels(place):
    samples, _ = soundfile.read("a.wav")
    soundfile.write("twice.wav", np.stack([samples, samples], axis=1), 16_000)
    soundfile.write("fast.wav", np.tile(samples, 3), 32_000)
    assert verify.verify(["a.wav"], "twice.wav", "models/qat.onnx")[0]["score"] == pytest.approx(1, abs=1e-4)
    assert verify.verify(["a.wav"], "fast.wav", "models/qat.onnx")[0]["seconds"]["audio"] == pytest.approx(0.5 + 0.75)
    program = "import sys; sys.modules['soxr'] = None; from src.runtime.audio import waveform; waveform('fast.wav')"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert "32000 Hz; to convert it to 16000 Hz, install soxr" in output.stderr


def test_what_cannot_be_used_is_named(place):
    soundfile.write("silent.wav", np.zeros(16_000), 16_000)
    with pytest.raises(InputError, match="silent.wav: silent"):
        verify.verify(["a.wav"], "silent.wav", "models/qat.onnx")
    with pytest.raises(InputError, match="a.wav: not a model"):
        verify.verify(["a.wav"], "b.wav", "a.wav")
    (place / "metrics/calibration/qat.json").write_text("{")
    with pytest.raises(InputError, match="qat.json: not a calibration"):
        verify.verify(["a.wav"], "b.wav", "models/qat.onnx")


def test_the_commands_in_the_readme_run(place):
    """All lines of README.md that call these programs, on files of the names that they use."""
    release = place / "models/release"
    release.mkdir()
    (release / "model.onnx").write_bytes((place / "models/qat.onnx").read_bytes())
    (release / "config.json").write_text(json.dumps({**asdict(FITTED), "sha256": sha256(release / "model.onnx")}))
    (place / "recordings").mkdir()
    for copy, name in (
        ("enrol.wav", "a.wav"),
        ("enrol2.wav", "c.flac"),
        ("test.wav", "b.wav"),
        ("recordings/a.wav", "a.wav"),
        ("recordings/b.wav", "b.wav"),
    ):
        soundfile.write(copy, *soundfile.read(name))
    lines = [
        shlex.split(line, comments=True)
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith(("python -m src.verify", "python -m src.embed"))
    ]
    assert {line[2] for line in lines} == {"src.verify", "src.embed"}
    for line in lines:
        output = run(*line[3:], module=line[2].removeprefix("src."))
        assert output.returncode in (0, 1) and not output.stderr and output.stdout, (line, output.stderr)
    with np.load("embeddings.npz") as found:
        assert found["paths"].tolist() == ["a.wav", "b.wav"]


@pytest.mark.parametrize("module", ["verify", "embed"])
def test_what_makes_a_start_slow_is_not_imported(module):
    program = f"import sys, src.{module}; print([name for name in {HEAVY} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
