"""The model on a pair of recordings, as a user runs it and by what it computes."""

import json
import os
import shlex
from dataclasses import asdict

import numpy as np
import onnxruntime
import pytest
import soundfile

from src import verify
from src.common.files import sha256
from src.evaluate import score_calibration
from src.runtime import calibration, engine
from src.runtime.audio import waveform
from src.runtime.errors import InputError
from src.runtime.scoring import mean_direction, normalised
from tests.evaluate.conftest import save_model
from tests.workspace import ROOT, python

FITTED = calibration.Calibration(8.0, -3.0, 0.5)
HEAVY = ("torch", "scipy", "speechbrain", "pandas", "datasets", "onnx", "soxr", "yaml", "matplotlib")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a model, its calibration and four recordings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    save_model("models/qat.onnx")
    score_calibration.write("metrics/evaluation/qat/calibration.json", FITTED)
    for seed, name in enumerate(("a.wav", "b.wav", "c.flac", "d.wav")):
        rng = np.random.default_rng(seed)
        sound = np.convolve(rng.normal(size=8000 + 100 * seed), rng.normal(size=9), "same")
        soundfile.write(name, 0.5 * sound / np.abs(sound).max(), 16_000)
    return tmp_path


@pytest.fixture
def run(called):
    return lambda *arguments: called("src.verify", *arguments, failed=2)


def process(*arguments, **env):
    return python(".", "-m", "src.verify", *arguments, **env)


def by_hand(*paths):
    model = onnxruntime.InferenceSession("models/qat.onnx")
    embeddings = [model.run(None, {"waveform": soundfile.read(path, dtype="float32")[0][None]})[0][0] for path in paths]
    unit = [embedding.astype(float) / np.linalg.norm(embedding) for embedding in embeddings]
    enrolled = sum(unit[:-1])
    return enrolled @ unit[-1] / np.linalg.norm(enrolled)


def test_score_is_the_cosine_to_the_mean_of_the_enrolments(place, run):
    for paths in (("a.wav", "b.wav"), ("a.wav", "b.wav", "c.flac", "d.wav")):
        status, printed, _ = run(*paths, "--json")
        found = json.loads(printed)
        assert (found["enrol"], found["test"]) == ([*paths[:-1]], paths[-1])
        assert status == (0 if found["score"] >= 0.5 else 1) and found["seconds"]["embed"] > 0
        assert found["score"] == pytest.approx(by_hand(*paths), abs=2e-6)
        assert found["log_likelihood_ratio"] == pytest.approx(8 * found["score"] - 3, abs=1e-4)
        assert (found["threshold"], found["decision"]) == (
            0.5,
            "same speaker" if found["score"] >= 0.5 else "different speakers",
        )


def test_exit_status_is_the_decision(place):
    score, _ = verify.verify(["a.wav"], "b.wav", "models/qat.onnx")
    for threshold, status, decision in ((score["score"] - 0.01, 0, "same"), (score["score"] + 0.01, 1, "different")):
        output = process("a.wav", "b.wav", "--threshold", str(threshold))
        assert output.returncode == status and decision in output.stdout and "ms" in output.stdout
    output = process("a.wav", "nowhere.wav")
    assert output.returncode == 2 and output.stderr == "error: nowhere.wav: no such file\n"


def test_a_score_at_the_threshold_is_the_same_speaker(place):
    session = engine.session("models/qat.onnx")
    embeddings = [engine.embedding(session, waveform(path)[0]).astype(float) for path in ("a.wav", "b.wav")]
    score = float(mean_direction(embeddings[:1]) @ normalised(embeddings[1]))
    for threshold, decision in ((score, "same speaker"), (np.nextafter(score, 2), "different speakers")):
        found, status = verify.verify(["a.wav"], "b.wav", "models/qat.onnx", threshold)
        assert (found["decision"], status) == (decision, int(decision != "same speaker"))


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


def test_without_a_threshold_there_is_a_score_and_no_decision(place, run):
    (place / "metrics/evaluation/qat/calibration.json").unlink()
    status, printed, _ = run("a.wav", "b.wav")
    assert status == 2 and "score" in printed and "no threshold is known" in printed and "likelihood" not in printed
    score_calibration.write("metrics/evaluation/qat/calibration.json", calibration.Calibration(8, -3, 0.5, "s-norm"))
    status, printed, _ = run("a.wav", "b.wav")
    assert status == 2 and "after s-norm" in printed


def test_normalised_scores_are_those_of_the_cohort_that_goes_with_them(place, run):
    cohort = normalised(np.random.default_rng(0).normal(size=(6, 5))).astype(np.float32)
    np.save("metrics/evaluation/qat/cohort.npy", cohort)
    checksum = sha256("metrics/evaluation/qat/cohort.npy")
    about = calibration.Cohort("cohort.npy", checksum, 3)
    fitted = calibration.Calibration(2.0, -1.0, 1.5, "as-norm", cohort=about)
    score_calibration.write("metrics/evaluation/qat/calibration.json", fitted)
    session = engine.session("models/qat.onnx")
    a, b = (engine.embedding(session, waveform(path)[0]).astype(float) for path in ("a.wav", "b.wav"))
    score = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    against = [np.sort(cohort @ side / np.linalg.norm(side))[-3:] for side in (a, b)]
    expected = sum((score - each.mean()) / each.std() for each in against) / 2
    status, printed, _ = run("a.wav", "b.wav", "--json")
    found = json.loads(printed)
    assert found["score"] == pytest.approx(expected, abs=1e-5)
    assert found["log_likelihood_ratio"] == pytest.approx(2 * expected - 1, abs=1e-4)
    assert (found["threshold"], status) == (1.5, int(expected < 1.5))
    (place / "metrics/evaluation/qat/cohort.npy").unlink()
    status, _, error = run("a.wav", "b.wav")
    assert status == 2 and "cohort.npy: the cohort of" in error and error.count("\n") == 1


def test_a_calibration_that_is_named_goes_before_the_models_own(place, run):
    own = {**calibration.Calibration(1.0, 0.0, 0.9, threshold=0.8).fields(), "sha256": sha256("models/qat.onnx")}
    (place / "own.json").write_text(json.dumps(own))
    found = json.loads(run("a.wav", "b.wav", "--json", "--calibration", "own.json")[1])
    assert (found["threshold"], found["threshold_from"]) == (0.8, "own.json")
    (place / "own.json").write_text(json.dumps(own | {"sha256": "0"}))
    status, _, error = run("a.wav", "b.wav", "--calibration", "own.json")
    assert status == 2 and error.startswith("error: own.json: is about another model than models/qat.onnx")


def test_other_rates_and_channels(place):
    samples, _ = soundfile.read("a.wav")
    soundfile.write("twice.wav", np.stack([samples, samples], axis=1), 16_000)
    soundfile.write("fast.wav", np.tile(samples, 3), 32_000)
    assert verify.verify(["a.wav"], "twice.wav", "models/qat.onnx")[0]["score"] == pytest.approx(1, abs=1e-4)
    assert verify.verify(["a.wav"], "fast.wav", "models/qat.onnx")[0]["seconds"]["audio"] == pytest.approx(0.5 + 0.75)
    program = "import sys; sys.modules['soxr'] = None; from src.runtime.audio import waveform; waveform('fast.wav')"
    output = python(".", "-c", program)
    assert "32000 Hz; to convert it to 16000 Hz, install soxr" in output.stderr


def test_what_cannot_be_used_is_named(place):
    soundfile.write("silent.wav", np.zeros(16_000), 16_000)
    with pytest.raises(InputError, match="silent.wav: silent"):
        verify.verify(["a.wav"], "silent.wav", "models/qat.onnx")
    (place / "metrics/evaluation/qat/calibration.json").write_text("{")
    with pytest.raises(InputError, match="calibration.json: not a calibration"):
        verify.verify(["a.wav"], "b.wav", "models/qat.onnx")


def test_the_commands_in_the_readme_run(place, called):
    """All lines of README.md that call these programs, on files of the names that they use."""
    release = place / "models/release"
    release.mkdir()
    (release / "model.onnx").write_bytes((place / "models/qat.onnx").read_bytes())
    (release / "config.json").write_text(json.dumps({**asdict(FITTED), "sha256": sha256(release / "model.onnx")}))
    (place / "recordings").mkdir()
    sources = {"enrol.wav": "a.wav", "enrol2.wav": "c.flac", "test.wav": "b.wav"}
    for copy, name in {**sources, "recordings/a.wav": "a.wav", "recordings/b.wav": "b.wav"}.items():
        soundfile.write(copy, *soundfile.read(name))
    lines = [
        shlex.split(line, comments=True)[2:]
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith(("python -m src.verify", "python -m src.embed"))
    ]
    assert {line[0] for line in lines} == {"src.verify", "src.embed"}
    for line in lines:
        status, printed, error = called(*line)
        assert status in (0, 1) and not error and printed, (line, error)
    with np.load("embeddings.npz") as found:
        assert found["paths"].tolist() == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-seconds", "nan"], "--max-seconds: Input should be greater than or equal to 0.3, got 'nan'"),
        (["--max-seconds", "0"], "--max-seconds: Input should be greater than or equal to 0.3, got '0'"),
        (["--threshold", "nan"], "--threshold: Input should be a finite number, got 'nan'"),
        (["--threshold", "50"], "--threshold: a cosine is from -1 to 1, got 50"),
        (["--channel", "0"], "--channel: a channel's number from 1 to 1024, or average, is needed, got '0'"),
        (["--channel", "left"], "--channel: a channel's number from 1 to 1024, or average, is needed, got 'left'"),
        (["--channel", "3"], "call.wav: no channel 3: it has 2"),
        (["--model", "nowhere.onnx"], "nowhere.onnx: not a model that ONNX Runtime can load"),
    ],
)
def test_what_is_wrong_is_no_decision(place, run, arguments, message):
    soundfile.write("call.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (16_000, 2)), 16_000)
    status, printed, error = run("a.wav", "call.wav", *arguments)
    assert status == 2 and not printed and error.startswith(f"error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize("name", ["numpy", "onnxruntime", "pydantic"])
def test_no_broken_installation_passes_for_a_decision(place, name):
    """A dependency whose import raises whatever it likes is no decision either."""
    (place / f"{name}.py").write_text("raise SystemError('broken')")
    output = process("a.wav", "a.wav", PYTHONPATH=f"{place}:{ROOT}")
    assert output.returncode == 2 and output.stderr.startswith("error: ") and output.stderr.count("\n") == 1


def test_a_long_recording_is_heard_in_windows_and_whole_where_that_is_asked_for(place, run):
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, 61 * 16_000)
    soundfile.write("long.wav", sound, 16_000)
    session = engine.session("models/qat.onnx")
    enrolled = normalised(engine.embedding(session, waveform("a.wav")[0]).astype(float))
    samples = waveform("long.wav")[0]
    for seconds, parts in (("inf", 1), (None, 2), ("30.5", 2), ("13", 5), ("0.5", 0)):
        status, printed, error = run("a.wav", "long.wav", "--json", *(["--max-seconds", seconds] if seconds else []))
        assert status in (0, 1) and not error
        found = json.loads(printed)
        used = samples if parts else samples[: 5 * 8_000]
        assert found["seconds"]["audio"] == pytest.approx(0.5 + len(used) / 16_000, abs=1e-3)
        mean = np.mean([engine.embedding(session, part) for part in np.array_split(used, parts or 5)], axis=0)
        assert found["score"] == pytest.approx(enrolled @ normalised(mean.astype(float)), abs=2e-6)


def test_channels_that_differ_are_said_and_can_be_chosen(place, run):
    """One speaker of a call on each channel: noise that sounds in turns."""
    sounds = [soundfile.read(name)[0][:8000] for name in ("a.wav", "b.wav")]
    silence = np.zeros(8000)
    call = np.stack([np.concatenate([sounds[0], silence]), np.concatenate([silence, sounds[1]])], axis=1)
    soundfile.write("call.wav", call, 16_000)
    soundfile.write("left.wav", call[:, 0], 16_000)
    status, _, error = run("left.wav", "call.wav", "--json")
    assert status in (0, 1) and error.startswith("note: call.wav: channels differ") and error.count("\n") == 1
    for channel, alike in (("1", True), ("2", False)):
        _, printed, error = run("left.wav", "call.wav", "--json", "--channel", channel)
        assert (json.loads(printed)["score"] > 1 - 1e-6) == alike and not error


def test_a_name_of_any_bytes_is_shown(place):
    name = os.fsdecode(b"\xe9\xff\n\xe4\xb8\xad.wav")
    os.rename("b.wav", name)
    output = process(name, "a.wav", "--json", PYTHONIOENCODING="ascii")
    assert output.returncode in (0, 1) and json.loads(output.stdout)["enrol"] == [name]
    os.truncate(name, 0)
    output = process(name, "a.wav", PYTHONIOENCODING="ascii")
    assert output.returncode == 2 and output.stderr.endswith(".wav: empty\n") and output.stderr.count("\n") == 1


def test_enrolments_that_cancel_each_other_out_are_no_decision(place, monkeypatch):
    vectors = iter(np.array([[1, 0], [-1, 0], [1, 0]], dtype=np.float32))
    monkeypatch.setattr(verify.engine, "embedding", lambda *_: next(vectors))
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match="cancel each other out"):
        verify.verify(["a.wav", "b.wav"], "d.wav", "models/qat.onnx")


@pytest.mark.parametrize("module", ["verify", "embed"])
def test_what_makes_a_start_slow_is_not_imported(module):
    program = f"import sys, src.{module}; print([name for name in {HEAVY} if name in sys.modules])"
    output = python(".", "-c", program)
    assert output.stdout.strip() == "[]"
