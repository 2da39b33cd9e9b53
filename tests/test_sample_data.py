import csv
import hashlib
import os
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from src import sample_data
from src.common import params
from src.data import manifest
from src.evaluate import test_set
from src.runtime.errors import InputError
from src.sources import channel

PARAMS = Path(__file__).parents[1] / "params.yaml"


def write(path, seconds=2.5, rate=16_000, channels=1):
    """Noise that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(str(path.name + path.parent.name).encode()))
    soundfile.write(path, rng.uniform(-0.3, 0.3, (round(seconds * rate), channels)), rate)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A repository with ten speakers of four utterances in speech/, and an encoder trained on nobody."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    for speaker in range(10):
        for utterance in range(4):
            write(tmp_path / "speech" / f"s{speaker}" / f"{utterance}.wav")
    return tmp_path


def run(capsys=None, encoder="encoder", max_missing_trials=0.01, **data):
    values = yaml.safe_load(PARAMS.read_text())
    values["encoder"]["source"] = str(encoder)
    values["data"] |= {"source": "folder", "path": "speech", "speakers": 10, "utterances_per_speaker": 3}
    values["data"] |= data
    values["evaluate"]["max_missing_trials"] = max_missing_trials
    Path("params.yaml").write_text(yaml.safe_dump(values))
    sample_data.main()
    return manifest.read(), capsys.readouterr().out if capsys else None


def skipped():
    with open("data/skipped.csv", newline="") as file:
        return {row["utt_id"]: row["reason"] for row in csv.DictReader(file)}


def splits(rows):
    speakers = defaultdict(set)
    for row in rows:
        speakers[row.split].add(row.speaker)
    return speakers


def fingerprint():
    files = sorted(path for path in Path("data").rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_folder_becomes_audio_in_four_splits_and_the_same_again(work, capsys):
    rows, out = run(capsys)
    assert Counter(len(names) for names in splits(rows).values()) == Counter([2, 2, 3, 3])
    assert sum(len(names) for names in splits(rows).values()) == len({row.speaker for row in rows}) == 10
    assert set(Counter(row.speaker for row in rows).values()) == {3}
    assert {row.seen for row in rows} == {0}
    for row in rows:
        info = soundfile.info(row.path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert info.duration == row.seconds
    assert len(list(Path("data/audio").iterdir())) == len(rows) == 30
    assert sorted(path.name for path in Path("data").iterdir()) == ["audio", "manifest.csv", "skipped.csv"]
    assert "skipped utterances: 0" in out and "dropped" not in out
    first = fingerprint()
    run()
    assert fingerprint() == first


def test_speakers_and_utterances_are_limited_and_cut(work):
    rows, _ = run(speakers=8, utterances_per_speaker=2, max_seconds=2.25)
    assert Counter(Counter(row.speaker for row in rows).values()) == {2: 8}
    assert {row.seconds for row in rows} == {2.25}


def test_what_is_unusable_is_replaced_listed_and_counted(work, capsys):
    shutil.copy("speech/s0/0.wav", "speech/s1/0.wav")
    write(work / "speech/s2/0.wav", seconds=0.9)
    (work / "speech/s3/0.wav").write_bytes(b"")
    (work / "speech/s4/0.wav").write_text("not audio")
    soundfile.write("speech/s5/0.wav", np.zeros(48_000), 16_000)
    (work / "speech/s5/1.wav").write_bytes((work / "speech/s5/1.wav").read_bytes()[:30_000])
    (work / "speech/s5/2.wav").unlink()
    (work / "speech/s5/2.wav").symlink_to("nowhere")
    write(work / "speech/s6/0.wav", rate=44_100, channels=2)
    rows, out = run(capsys, utterances_per_speaker=4)
    reasons = skipped()
    assert reasons.pop("s0/0.wav") == "duplicate: the same audio as s1/0.wav"  # whose voice it is cannot be told
    assert reasons.pop("s1/0.wav") == "duplicate: the same audio as s0/0.wav"
    assert reasons == {
        "s2/0.wav": "too short: 0.90 s",
        "s3/0.wav": "empty",
        "s4/0.wav": "not decodable: Format not recognised",
        "s5/0.wav": "silent",
        "s5/1.wav": "truncated: it ends after 0.94 s",
        "s5/2.wav": "dangling link",
        "s5/3.wav": "too few of this speaker: 1, 2 are needed",
    }
    assert len(rows) == 40 - 9 == len(list(Path("data/audio").iterdir())) and "s5" not in {row.speaker for row in rows}
    assert "skipped s2/0.wav: too short: 0.90 s" in out and "too short (1)" in out and "s5 (1 usable)" in out
    rows, _ = run(utterances_per_speaker=3)
    counts = Counter(row.speaker for row in rows)
    assert {counts[speaker] for speaker in counts if speaker not in ("s0", "s1")} == {3}


def test_an_error_leaves_no_output(work):
    for speakers, limit in ((7, 10), (1, 7)):
        for speaker in range(speakers, limit):
            shutil.rmtree(work / "speech" / f"s{speaker}")
        with pytest.raises(
            InputError, match=f"^{speakers} speakers? with at least 2 usable utterances .*; 8 are needed"
        ):
            run()
    with pytest.raises(InputError, match="data.path: nowhere: no such folder"):
        run(path="nowhere")
    assert not list(Path("data").iterdir())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("data/audio/mine.flac", write),
        ("data/audio", Path.touch),
        ("data/audio", lambda path: path.symlink_to("../encoder")),
        ("data/manifest.csv", Path.mkdir),
    ],
)
def test_what_this_stage_did_not_make_is_not_replaced(work, name, make):
    (work / name).parent.mkdir(parents=True)
    make(work / name)
    before = sorted(work.rglob("*"))
    with pytest.raises(InputError, match="cannot be (replaced|written)"):
        run()
    assert sorted(work.rglob("*")) == sorted([*before, work / "params.yaml"])


def test_a_link_in_the_place_of_an_output_is_replaced_and_its_target_stays(work):
    (work / "elsewhere").mkdir()
    (work / "mine").write_text("mine")
    (work / "data").symlink_to("elsewhere")
    (work / "elsewhere/skipped.csv").symlink_to(work / "mine")
    run()
    assert (work / "mine").read_text() == "mine" and (work / "data").is_symlink()
    assert sorted(os.listdir("elsewhere")) == ["audio", "manifest.csv", "skipped.csv"]


def test_unseen_speakers_make_the_evaluation(work, capsys):
    seen = [f"s{i}" for i in range(6)]
    Path("encoder/label_encoder.txt").write_text("".join(f"'{name}' => 0\n" for name in seen) + "====\n")
    rows, out = run(capsys)
    assert splits(rows)["test"] | splits(rows)["validation"] == {"s6", "s7", "s8", "s9"}
    assert {row.speaker for row in rows if row.seen} == set(seen)
    assert "note" not in out
    rows, _ = run(speakers=8)
    assert splits(rows)["test"] | splits(rows)["validation"] == {"s6", "s7", "s8", "s9"}
    Path("encoder/label_encoder.txt").write_text("".join(f"'s{i}' => 0\n" for i in range(10)) + "====\n")
    rows, out = run(capsys)
    assert {row.seen for row in rows} == {1}
    assert "note: the encoder was trained on speakers of the test split" in out


def test_a_trial_list_makes_the_test_split_uncut(work, capsys):
    for name in ("s0/long.wav", "s0/short.wav"):
        write(work / "speech" / name, seconds=10 if "long" in name else 0.5)
    (work / "speech" / "s1" / "broken.wav").write_text("not audio")
    shutil.copy("speech/s0/1.wav", "speech/s5/0.wav")
    Path("trials.txt").write_text("1 s0/long.wav s0/short.wav\n0 s0/1.wav s1/1.wav\n1 s1/1.wav s1/broken.wav\n")
    rows, _out = run(capsys, trials="trials.txt", utterances_per_speaker=4)
    assert {(row.utt_id, row.seconds) for row in manifest.select(rows, "test")} == {
        ("s0/long.wav", 10.0),
        ("s0/short.wav", 0.5),
        ("s0/1.wav", 2.5),
        ("s1/1.wav", 2.5),
    }
    assert skipped() == {
        "s1/broken.wav": "not decodable: Format not recognised",
        "s5/0.wav": "duplicate: the same audio as s0/1.wav",
    }
    assert {name: len(names) for name, names in splits(rows).items()} == {
        "calibration": 2,
        "finetune": 2,
        "validation": 3,
        "test": 2,
    }
    Path("trials.txt").write_text("1 s0/1.wav s0/2.wav\n0 s0/1.wav s9/77.wav\n")
    with pytest.raises(
        InputError, match=r"trials.txt: 1 of 2 trials .* such as s9/77.wav; evaluate.max_missing_trials"
    ):
        run(trials="trials.txt")
    assert {row.utt_id for row in manifest.select(manifest.read(), "test")} >= {"s0/long.wav"}  # as they were


def test_trials_without_their_recording_are_left_out_up_to_a_share(work, capsys):
    trials = ["s0-0 s0-1 target", "s0-1 s1-0 nontarget", "s1/1.flac s1/2 target", "s0-0 s9-77 nontarget"]
    Path("trials.txt").write_text("\n".join(trials))
    (work / "speech/notes.txt").write_text("no recording")
    rows, out = run(capsys, trials="trials.txt", max_missing_trials=0.25)
    tested = {"s0/0.wav", "s0/1.wav", "s1/0.wav", "s1/1.wav", "s1/2.wav"}
    assert {row.utt_id for row in manifest.select(rows, "test")} == tested
    assert "trial list: 3 of 4 trials are of usable recordings" in out
    assert skipped() == {"s9-77": "no such file"} and "dropped speakers" not in out
    test = test_set.load(rows, params.load())
    assert len(test.verification) == 3 and test.trials_missing == 1
    with pytest.raises(InputError, match=r"1 of 4 trials .* such as s9-77; evaluate.max_missing_trials allows 24 %"):
        run(trials="trials.txt", max_missing_trials=0.24)
    with pytest.raises(InputError, match="evaluate.max_missing_trials allows 24 %"):
        test_set.load(rows, params.load())


def test_of_one_utterance_in_two_encodings_or_from_two_microphones_one_is_kept(work):
    rng = np.random.default_rng(7)
    for file in sorted(Path("speech/s3").glob("*.wav")):
        samples, _ = soundfile.read(file)
        soundfile.write(file.with_suffix(".mp3"), samples, 16_000)
        (work / "speech/s4/far").mkdir(exist_ok=True)
        near = soundfile.read(f"speech/s4/{file.name}")[0]
        far = channel.apply(np.roll(near, 300), rng, (15, 15))
        soundfile.write(f"speech/s4/far/{file.name}", far, 16_000)
    rows, _ = run(utterances_per_speaker=8)
    assert set(Counter(row.speaker for row in rows).values()) == {4}
    assert len({Path(row.utt_id).stem for row in rows if row.speaker in ("s3", "s4")}) == 4
    assert {utt_id.split("/")[0] for utt_id in skipped()} == {"s3", "s4"}
    assert all(reason.startswith("duplicate: the same utterance as s") for reason in skipped().values())


def test_what_is_given_and_not_used_is_said(work, capsys):
    Path("speech/speakers.csv").write_text("speaker;sex\n" + "".join(f"S{i};f\n" for i in range(10)))
    (work / "speech/s1/note.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    (work / "speech/s1/broken.wav").write_text("not audio")
    Path("trials.txt").write_bytes(
        "\ufeffs0/0.wav s0/1.wav target\r\ns0/0.wav s1/1.wav nontarget\r\ns1/1.wav s1/broken.wav target".encode()
    )
    _, out = run(capsys, trials="trials.txt")
    assert "10 of 10 speakers of speakers.csv are not in the folder: 'S0', for one, where the folder has 's0'" in out
    assert "the sex of 0 of 10 speakers is known" in out
    assert "trials.txt: 3 trials of 4 recordings of 2 speakers" in out
    assert "trial list: 2 of 3 trials are of usable recordings" in out
    assert skipped()["s1/note.m4a"].startswith("not decodable")


def test_speakers_below_regions(work):
    for i in range(10):
        (work / f"speech/region{i % 2}").mkdir(exist_ok=True)
        (work / f"speech/s{i}").rename(work / f"speech/region{i % 2}/s{i}")
    rows, _ = run(level=2)
    assert {row.speaker for row in rows} == {f"s{i}" for i in range(10)}


def test_synthetic_speakers(work):
    rows, _ = run(source="synthetic", speakers=8, utterances_per_speaker=2, max_seconds=3)
    assert Counter(Counter(row.speaker for row in rows).values()) == {2: 8}
    assert all(2 <= row.seconds <= 3 for row in rows)


def test_recordings_whose_channels_differ_are_counted_once(work, capsys):
    """Noise in turns on the two sides, as in a call."""
    turns = np.repeat(np.arange(12) % 2, 4_000)[:, None] == [0, 1]
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (len(turns), 2))
    soundfile.write("speech/s0/0.wav", noise * turns, 16_000)
    soundfile.write("speech/s0/1.wav", noise[::-1, :1] * [1, 0.5], 16_000)
    _, out = run(capsys, utterances_per_speaker=4)
    notes = [line for line in out.splitlines() if line.startswith("note: channels differ")]
    assert len(notes) == 1 and "in 1 recording, such as s0/0.wav" in notes[0]
