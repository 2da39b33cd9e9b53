"""Calibration on a folder of speakers, as a user runs it."""

import json

import numpy as np
import pytest
import soundfile

from src.common.files import sha256
from src.evaluate import metrics, score_calibration
from src.runtime import calibration, engine
from src.runtime.audio import waveform
from tests.evaluate.conftest import save_model
from tests.workspace import python


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Twelve speakers, four recordings each, and a model."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for speaker in range(12):
        colour = rng.normal(size=9)
        for number in range(4):
            path = tmp_path / f"speech/s{speaker:02}/{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = np.convolve(rng.normal(size=8000), colour + 0.7 * rng.normal(size=9), "same")
            soundfile.write(path, 0.5 * sound / np.abs(sound).max(), 16_000)
    save_model("a.onnx", size=16)
    save_model("b.onnx", size=16, factor=2)
    return tmp_path


@pytest.fixture
def run(called):
    return lambda *arguments: called("src.calibrate", "speech", "--model", "a.onnx", *arguments)


def by_hand():
    session = engine.session("a.onnx")
    paths = [f"speech/s{speaker:02}/{number}.wav" for speaker in range(12) for number in range(4)]
    values = np.stack([engine.embedding(session, waveform(path)[0]) for path in paths]).astype(float)
    unit = (values / np.linalg.norm(values, axis=1, keepdims=True)).reshape(12, 4, -1)
    scores = np.einsum("ed,tnd->etn", unit[:, 0], unit[:, 1:])
    targets = np.broadcast_to(np.eye(12, dtype=bool)[..., None], scores.shape)
    return scores.ravel().round(8), targets.ravel()


def test_what_is_written_is_what_verify_and_identify_read(place, run, called):
    status, printed, _ = run("--prior", "0.05")
    assert (
        status == 0
        and "EER" in printed
        and "actual DCF 0.05" in printed
        and not (place / "calibration.json.partial").exists()
    )
    content, (scores, targets) = json.loads((place / "calibration.json").read_text()), by_hand()
    fitted = calibration.read("calibration.json")
    assert (fitted.scale, fitted.offset) == pytest.approx(
        (lambda each: (each.scale, each.offset))(score_calibration.fit(scores, targets)), rel=1e-4
    )
    assert fitted.llrs(fitted.threshold) == pytest.approx(np.log(19), abs=1e-3)
    assert content["sha256"] == sha256("a.onnx") and content["calibrated_on"]["speakers"] == 12
    assert content["calibrated_on"]["eer"] == pytest.approx(metrics.eer(scores, targets), abs=1e-6)
    arguments = ("--model", "a.onnx", "--calibration", "calibration.json", "--json")
    _, printed, _ = called("src.verify", "speech/s00/0.wav", "speech/s00/1.wav", *arguments, failed=2)
    assert json.loads(printed)["threshold"] == fitted.threshold
    assert called("src.enrol", "g.db", "speech", "--model", "a.onnx")[0] == 0
    _, printed, _ = called("src.identify", "g.db", "speech/s00/1.wav", *arguments, failed=2)
    assert json.loads(printed)["threshold"] == pytest.approx(fitted.nontargets.threshold(0.01, 12))


def test_a_file_about_this_model_keeps_its_other_fields_and_any_other_stays(place, run):
    fields = calibration.Calibration(1.0, 0.0, 0.5).fields() | {"sha256": sha256("a.onnx"), "sample_rate": 16_000}
    (place / "config.json").write_text(json.dumps(fields))
    assert run("--out", "config.json", "--fmr", "0.1")[0] == 0
    content = json.loads((place / "config.json").read_text())
    assert content["sample_rate"] == 16_000 and content["scale"] != 1 and "threshold" in content
    assert calibration.of_model("a.onnx")[0] == calibration.read("config.json")
    assert run("--out", "config.json")[0] == 0
    assert "threshold" not in json.loads((place / "config.json").read_text())
    for text in ("my notes", "[]", json.dumps({"sha256": sha256("b.onnx")})):
        (place / "other.json").write_text(text)
        status, _, error = run("--out", "other.json")
        assert status == 1 and error.startswith("error: other.json: ") and (place / "other.json").read_text() == text


def test_a_trial_list_takes_the_place_of_all_pairs(place, run):
    lines = [f"1 s{s:02}/0.wav s{s:02}/1.wav\n0 s{s:02}/0.wav s{(s + 1) % 12:02}/1.wav" for s in range(12)]
    (place / "list.txt").write_text("\n".join(lines))
    (place / "speech/s11/3.wav").write_bytes(b"")  # not in the list
    status, printed, error = run("--trials", "list.txt")
    assert status == 0 and "24 trials, 12 of them target" in printed and not error
    (place / "speech/s11/0.wav").unlink()
    status, _, error = run("--trials", "list.txt")
    assert status == 1 and "have recordings that are missing" in error


def test_scores_stay_normalised_where_the_models_are(place, run, called):
    cohort = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    cohort /= np.linalg.norm(cohort, axis=1, keepdims=True)
    np.save("cohort.npy", cohort)
    about = calibration.Cohort("cohort.npy", sha256("cohort.npy"), None)
    fields = calibration.Calibration(1.0, 0.0, 1.0, "s-norm", cohort=about).fields()
    (place / "config.json").write_text(json.dumps({**fields, "sha256": sha256("a.onnx")}))
    (place / "own").mkdir()
    assert run("--out", "own/calibration.json")[0] == 0
    fitted = calibration.read("own/calibration.json")
    assert fitted.normalisation == "s-norm" and fitted.cohort.file == "../cohort.npy"
    np.testing.assert_array_equal(calibration.cohort(fitted, "own/calibration.json")[0], cohort)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prior", "0.1", "--fmr", "0.1"], "--fmr: --prior and --fmr both ask for a threshold; give one of them"),
        (["--fmr", "2"], "--fmr: Input should be less than 1"),
        (["--enrolments", "4"], "evaluate.enrolments: 4: of 12 speakers 0 have more utterances"),
        (["--trials", "nowhere.txt"], "nowhere.txt: no such file"),
    ],
)
def test_faults_are_told_in_a_line(place, run, arguments, message):
    status, printed, error = run(*arguments)
    assert status and not printed and error.startswith(f"error: {message}") and error.count("\n") == 1
    assert not (place / "calibration.json").exists()


def test_torch_is_not_imported():
    heavy = ("torch", "speechbrain", "datasets", "onnx", "matplotlib", "optuna")
    output = python(".", "-c", f"import sys, src.calibrate; print([name for name in {heavy} if name in sys.modules])")
    assert output.stdout.strip() == "[]", output.stderr
