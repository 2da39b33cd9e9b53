"""Enrolment and identification, as a user runs them."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from src import enrol, identify
from src.evaluate import score_calibration
from src.runtime import calibration, engine, scoring
from src.runtime.audio import waveform
from src.runtime.calibration import Calibration, Nontargets
from src.runtime.errors import InputError
from src.runtime.scoring import mean_direction, normalised
from tests.evaluate.conftest import save_model
from tests.test_verify import HEAVY
from tests.workspace import ROOT, python

FITTED = Calibration(8.0, -3.0, 0.5, nontargets=Nontargets(0.4, 0.1, 50_000))
EVALUATION = "metrics/evaluation/qat/calibration.json"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A model with its calibration, and four recordings of each of six speakers, three of whom are in `speech`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    save_model("models/qat.onnx", size=24)
    save_model("models/ptq.onnx", size=24, factor=2)
    score_calibration.write(EVALUATION, FITTED)
    rng = np.random.default_rng(0)
    for speaker in range(6):
        colour = rng.normal(size=9)
        for number in range(4):
            path = tmp_path / ("speech" if speaker < 3 else "others") / f"s{speaker}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = np.convolve(rng.normal(size=40_000), colour + 0.1 * rng.normal(size=9), "same")
            soundfile.write(path, 0.5 * sound / np.abs(sound).max(), 16_000)
    return tmp_path


@pytest.fixture
def run(called):
    return lambda module, *arguments: called(f"src.{module}", *arguments, failed=2 if module == "identify" else 1)


def embeddings(*paths):
    session = engine.session("models/qat.onnx")
    return np.stack([engine.embedding(session, waveform(path)[0]) for path in paths]).astype(float)


def first_three(speaker):
    return [f"speech/{speaker}/{number}.wav" for number in range(3)]


def test_a_search_gives_the_scores_by_hand(place, run):
    for speaker in ("s0", "s1", "s2"):
        status, printed, error = run("enrol", "g.db", speaker, *first_three(speaker))
        assert (status, error) == (0, "") and printed == f"{speaker}: 3 recordings added, 3 in all, 7.5 s\n"
    status, printed, error = run("identify", "g.db", "speech/s1/3.wav", "--top", 5, "--json")
    assert error.startswith("note: g.db: a voiceprint is of 3 recordings (median)") and error.count("\n") == 1
    found = json.loads(printed)
    enrolled = {name: mean_direction(embeddings(*first_three(name))) for name in ("s0", "s1", "s2")}
    (probe,) = normalised(embeddings("speech/s1/3.wav"))
    expected = sorted(((float(probe @ vector), name) for name, vector in enrolled.items()), reverse=True)
    assert [each["speaker"] for each in found["candidates"]] == [name for _, name in expected]
    assert [each["score"] for each in found["candidates"]] == pytest.approx([score for score, _ in expected], abs=2e-6)
    assert found["margin"] == pytest.approx(expected[0][0] - expected[1][0], abs=3e-6)
    assert found["log_likelihood_ratio"] == pytest.approx(8 * expected[0][0] - 3, abs=1e-4)
    assert found["threshold"] == pytest.approx(FITTED.nontargets.threshold(0.01, 3)) and not found["extrapolated"]
    assert (found["gallery"], found["seconds"], found["speaker"]) == (3, 2.5, "s1" if status == 0 else None)


def test_the_exit_status_is_the_worst_decision(place, run):
    run("enrol", "g.db", "speech")
    lines = {}
    for number, (arguments, expected) in enumerate(
        [
            (["speech/s0/0.wav", "--threshold", "0.1"], 0),
            (["speech/s0/0.wav", "--threshold", "0.999999"], 1),
            (["speech/s0/0.wav", "nowhere.wav", "--threshold", "0.1"], 2),
        ]
    ):
        status, printed, _ = run("identify", "g.db", *arguments)
        assert status == expected
        lines[number] = printed.splitlines()
    assert lines[0][0].startswith("speech/s0/0.wav: s0; score ") and "margin" in lines[0][0] and "2.5 s" in lines[0][0]
    assert lines[1][0].startswith("speech/s0/0.wav: unknown (likest: s0)")
    assert lines[2][1] == "nowhere.wav: no decision: no such file"
    score_calibration.write(EVALUATION, Calibration(8.0, -3.0, 0.5))
    status, printed, _ = run("identify", "g.db", "speech/s0/0.wav")
    assert status == 2 and "does not say how different speakers score; give a --calibration" in printed


def test_the_threshold_rises_with_the_gallery_and_falls_with_the_rate(place):
    tail = FITTED.nontargets
    assert tail.threshold(0.01, 1) < tail.threshold(0.01, 10) < tail.threshold(0.001, 10) < tail.threshold(0.001, 1e6)
    assert tail.share(tail.threshold(0.01, 10)) == pytest.approx(1 - 0.99**0.1)
    assert [tail.beyond(0.01, size) for size in (10, 49, 51, 1000)] == [False, False, True, True]


def test_a_folder_is_enrolled_once_and_what_is_added_is_averaged(place, run):
    status, printed, error = run("enrol", "g.db", "speech")
    assert status == 0 and printed.count("4 recordings added, 4 in all") == 3 and not error
    assert run("enrol", "g.db", "speech")[1] == "s0: nothing new\ns1: nothing new\ns2: nothing new\n"
    shutil.copy("others/s3/0.wav", "speech/s0/4.wav")
    assert "s0: 1 recording added, 5 in all" in run("enrol", "g.db", "speech")[1]
    _, _, error = run("enrol", "g.db", "Zoe", "others/s3")
    assert error == "note: others/s3/0.wav: s0 is enrolled with it too\n"
    assert run("gallery", "g.db")[1].splitlines()[0] == "Zoe\t4 recordings\t10.0 s"
    assert run("gallery", "g.db", "--rename", "Zoe", "Ann", "--remove", "s1", "s2")[1] == "g.db: 2 speakers\n"
    assert [json.loads(line)["name"] for line in run("gallery", "g.db", "--json")[1].splitlines()] == ["Ann", "s0"]
    assert run("gallery", "g.db", "--remove", "Anne")[0] == 1


def test_what_cannot_be_enrolled_is_named(place, run):
    (place / "speech/s0/0.wav").write_bytes(b"")
    shutil.copy("others/s3/0.wav", "speech/loose.wav")
    status, printed, error = run("enrol", "g.db", "speech")
    assert status == 1 and "s0: 3 recordings added" in printed
    assert (
        error
        == "skipped: speech/loose.wav: no speaker: not in a folder directly below\nskipped: speech/s0/0.wav: empty\n"
    )
    for arguments, message in (
        (["Zoe", "nowhere.wav"], "error: Zoe nowhere.wav: nobody is enrolled"),
        (["nowhere"], "error: nowhere: no such folder; a speaker's name is followed by recordings"),
        (["a\nb", "others/s3/0.wav"], "error: a\\nb: not a speaker's name"),
        (["Zoe", "others/s3/0.wav", "--model", "models/ptq.onnx"], "error: g.db: holds voiceprints by models/qat.onnx"),
    ):
        status, printed, error = run("enrol", "g.db", *arguments)
        assert status == 1 and not printed and message in error, error
    status, printed, error = run("identify", "g.db", "others/s3/0.wav", "--model", "models/ptq.onnx")
    assert status == 2 and not printed and "holds voiceprints by models/qat.onnx" in error
    with pytest.raises(InputError, match=r"none.db: no such gallery"):
        next(identify.identify("none.db", ["others/s3/0.wav"], "models/qat.onnx"))


def test_notes_say_what_makes_an_answer_doubtful(place, run):
    run("enrol", "g.db", "speech")
    shutil.copytree("speech/s0", "speech/s0 again")
    run("enrol", "g.db", "s0 again", "speech/s0")
    samples, _ = soundfile.read("speech/s0/0.wav")
    soundfile.write("short.wav", samples[:16_000], 16_000)
    _, printed, _ = run("identify", "g.db", "short.wav", "--json", "--threshold", "0.1")
    found = json.loads(printed)
    assert found["seconds"] == 1.0 and found["margin"] == pytest.approx(0, abs=1e-6)
    notes = " ".join(found["notes"])
    assert (
        "short: under 2 s" in notes and "noisy" in notes and "more than one speaker is over the threshold: s0" in notes
    )
    quiet = samples * np.where(np.arange(len(samples)) // 4000 % 2, 0.003, 1)
    soundfile.write("clear.wav", quiet, 16_000)
    found = json.loads(run("identify", "g.db", "clear.wav", "--json", "--threshold", "0.999999")[1])
    assert found["signal_to_noise_db"] > 40 and found["notes"] == []


def test_normalised_scores_are_searched_as_they_were_evaluated(place, run):
    cohort = normalised(embeddings(*(f"others/s{s}/{n}.wav" for s in (3, 4, 5) for n in range(2)))).astype(np.float32)
    np.save("metrics/evaluation/qat/cohort.npy", cohort)
    checksum = calibration._sha256("metrics/evaluation/qat/cohort.npy")
    about = calibration.Cohort("cohort.npy", checksum, 4)
    fitted = Calibration(1.0, 0.0, 2.0, "as-norm", nontargets=FITTED.nontargets, cohort=about)
    score_calibration.write(EVALUATION, fitted)
    run("enrol", "g.db", "speech")
    found = json.loads(run("identify", "g.db", "speech/s1/3.wav", "--top", 3, "--json")[1])
    (probe,) = normalised(embeddings("speech/s1/3.wav"))
    for each in found["candidates"]:
        enrolled = mean_direction(embeddings(*(f"speech/{each['speaker']}/{number}.wav" for number in range(4))))
        sides = [scoring.spread(side[None], cohort, 4)[:, 0] for side in (enrolled, probe)]
        assert each["score"] == pytest.approx(float(scoring.s_norm(enrolled @ probe, *sides)), abs=1e-4)
    assert [each["score"] for each in found["candidates"]] == sorted(
        (e["score"] for e in found["candidates"]), reverse=True
    )
    np.save("metrics/evaluation/qat/cohort.npy", cohort[:3])
    status, _, error = run("identify", "g.db", "speech/s1/3.wav")
    assert status == 2 and "is not the cohort that" in error


def test_help_says_that_a_second_enrolment_adds(place, run):
    _, printed, _ = run("enrol", "--help")
    assert "gets the recordings added" in printed and "mean of all its length-normalised" in " ".join(printed.split())


@pytest.mark.parametrize("module", ["enrol", "identify", "gallery"])
def test_what_makes_a_start_slow_is_not_imported(module):
    output = python(".", "-c", f"import sys, src.{module}; print([name for name in {HEAVY} if name in sys.modules])")
    assert output.stdout.strip() == "[]"


def test_real_speakers_are_told_apart(shared, tmp_path, monkeypatch, run):
    """Eight speakers of real speech, three of them not enrolled, by the encoder that the repository ships."""
    monkeypatch.chdir(tmp_path)
    model = ROOT / "models/release/model.onnx"
    if not model.exists():
        pytest.skip("models/release is not there: dvc repro, or dvc pull, makes it")
    speakers = sorted(path for path in (shared / "speech").iterdir() if path.is_dir())[:8]
    recordings = {speaker.name: sorted(speaker.rglob("*.flac")) for speaker in speakers}
    for name in list(recordings)[:5]:
        assert run("enrol", "g.db", name, *recordings[name][:5], "--model", model)[0] == 0
    right = 0
    for name, paths in recordings.items():
        result, _ = next(identify.identify("g.db", paths[-1:], model, threshold=-1.0))
        right += result["speaker"] == name
    assert right >= 3


def test_enrolment_from_python_tells_what_was_skipped(place, capsys):
    (place / "speech/s0/0.wav").write_bytes(b"")
    assert enrol.enrol("g.db", ["speech"], "models/qat.onnx", workers=2) == {"speech/s0/0.wav": "empty"}
    assert capsys.readouterr().out.count("added") == 3
