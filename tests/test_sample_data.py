import contextlib
import csv
import hashlib
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from src import sample_data
from src.data import manifest
from src.runtime.errors import InputError
from src.sources import channel
from src.sources.select import shuffled

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


def run(capsys=None, encoder="encoder", **data):
    params = yaml.safe_load(PARAMS.read_text())
    params["encoder"]["source"] = str(encoder)
    params["data"] |= {"source": "folder", "path": "speech", "speakers": 10, "utterances_per_speaker": 3}
    params["data"] |= data
    Path("params.yaml").write_text(yaml.safe_dump(params))
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
    assert Counter(len(names) for names in splits(rows).values()) == Counter([2, 2, 2, 4])
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
    write(work / "speech/s6/0.wav", rate=44_100, channels=2)
    rows, out = run(capsys, utterances_per_speaker=4)
    reasons = skipped()
    assert reasons.pop("s0/0.wav") == "duplicate: the same audio as s1/0.wav"  # whose voice it is cannot be told
    assert reasons.pop("s1/0.wav") == "duplicate: the same audio as s0/0.wav"
    assert reasons == {
        "s2/0.wav": "too short: 0.90 s",
        "s3/0.wav": "empty",
        "s5/0.wav": "silent",
        "s4/0.wav": "not decodable: Format not recognised",
    }
    assert len(rows) == 40 - 6 == len(list(Path("data/audio").iterdir()))
    assert "skipped s2/0.wav: too short: 0.90 s" in out and "too short (1)" in out
    rows, _ = run(utterances_per_speaker=3)
    counts = Counter(row.speaker for row in rows)
    assert {counts[speaker] for speaker in counts if speaker not in ("s0", "s1")} == {3}


def test_a_speaker_left_with_too_few_by_a_duplicate_goes(work, capsys):
    for name in ("0", "1"):
        shutil.copy(f"speech/s0/{name}.wav", f"speech/s1/{name}.wav")
    for speaker in ("s0", "s1"):
        (work / f"speech/{speaker}/3.wav").unlink()
    rows, out = run(capsys)
    assert {row.speaker for row in rows} == {f"s{i}" for i in range(2, 10)}
    assert Counter(reason.split(":")[0] for reason in skipped().values()) == {
        "duplicate": 4,
        "too few of this speaker": 2,
    }
    assert "dropped speakers: 2" in out
    assert {Path(row.path).name for row in rows} == {path.name for path in Path("data/audio").iterdir()}


@pytest.mark.parametrize("speakers", [1, 2])
def test_one_or_two_speakers_are_told_to_be_too_few(work, speakers):
    for speaker in range(speakers, 10):
        shutil.rmtree(work / "speech" / f"s{speaker}")
    with pytest.raises(InputError, match=f"^{speakers} speakers? with at least 2 usable utterances found; 8 are"):
        run()


def test_a_speaker_with_one_utterance_is_dropped(work, capsys):
    for name in ("1", "2", "3"):
        (work / f"speech/s1/{name}.wav").unlink()
    rows, out = run(capsys)
    assert "s1" not in {row.speaker for row in rows} and "dropped speakers: 1 - s1 (1 usable)" in out


def test_bad_audio_is_skipped_with_its_reason_or_repaired_and_the_run_goes_on(work, capsys):
    """One fault each in the recordings of two more speakers, all of which are tried."""
    noise = np.random.default_rng(9).uniform(-0.3, 0.3, (20, 40_000))
    bad, good = work / "speech" / "bad", work / "speech" / "göod ñame"
    for folder in (bad, good):
        folder.mkdir()
    (bad / "empty.wav").touch()
    (bad / "text.flac").write_text("not audio" * 1_000)
    for i, name in enumerate(("cut.wav", "closed.wav", "whole.wav", "whole too.wav")):
        soundfile.write(bad / name, noise[16 + i], 16_000)
    (bad / "cut.wav").write_bytes((bad / "cut.wav").read_bytes()[:30_000])
    for name, value in (("nan.wav", np.nan), ("infinite.wav", -np.inf)):
        soundfile.write(bad / name, np.where(np.arange(40_000) == 7, value, noise[1]), 16_000, subtype="FLOAT")
    soundfile.write(bad / "zeros.wav", np.zeros(40_000), 16_000)
    soundfile.write(bad / "constant.wav", np.full(40_000, 0.4), 16_000)
    soundfile.write(bad / "clipped.wav", np.clip(100 * np.sin(np.arange(40_000) / 7) * noise[2], -1, 1), 16_000)
    soundfile.write(bad / "blip.wav", noise[3][:320], 16_000)
    (bad / "other.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    (bad / "dangling.wav").symlink_to("nowhere")
    (bad / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(bad / "pipe.wav")

    soundfile.write(good / "half an hour.wav", np.random.default_rng(3).uniform(-0.3, 0.3, 1_800 * 8_000), 8_000)
    soundfile.write(good / "44.1 kHz.wav", noise[4], 44_100)
    soundfile.write(good / "stereo ö.flac", noise[5:7].T, 48_000)
    soundfile.write(good / "24 bit.wav", noise[7], 16_000, subtype="PCM_24")
    soundfile.write(good / "float, too loud.wav", noise[8] * 9, 16_000, subtype="FLOAT")
    soundfile.write(good / "offset.wav", noise[9] + 0.6, 16_000)
    soundfile.write(good / "flac.wav", noise[10], 16_000, format="FLAC")

    with as_nobody(bad / "closed.wav", work):
        rows, out = run(capsys, speakers=12, utterances_per_speaker=40, min_seconds=0.5)
    found = skipped()
    reasons = {name.removeprefix("bad/"): reason for name, reason in found.items() if name.startswith("bad/")}
    assert len(reasons.pop("clipped.wav")) > 40 and reasons == {
        "empty.wav": "empty",
        "text.flac": "not decodable: Format not recognised",
        "cut.wav": "truncated: it ends after 0.94 s",
        "nan.wav": "NaN or infinite samples",
        "infinite.wav": "NaN or infinite samples",
        "zeros.wav": "silent",
        "constant.wav": "silent",
        "blip.wav": "too short: 0.02 s",
        "dangling.wav": "dangling link",
        "other.m4a": "not decodable: Format not recognised",
        "pipe.wav": "not a regular file",
        "loop.wav": "unreadable: Too many levels of symbolic links",
        "closed.wav": "unreadable: Permission denied",
    }
    assert set(found) == {f"bad/{name}" for name in (*reasons, "clipped.wav")} and "skipped utterances: 14" in out
    usable = {Path(row.utt_id).name: row for row in rows if row.speaker in ("bad", "göod ñame")}
    assert {name: row.seconds for name, row in usable.items()} == {
        "whole.wav": 2.5,
        "whole too.wav": 2.5,
        "half an hour.wav": 8.0,
        "44.1 kHz.wav": 14_512 / 16_000,
        "stereo ö.flac": 13_333 / 16_000,
        "24 bit.wav": 2.5,
        "float, too loud.wav": 2.5,
        "offset.wav": 2.5,
        "flac.wav": 2.5,
    }
    plain = soundfile.read(usable["24 bit.wav"].path)[0]
    assert np.abs(plain - noise[7]).max() <= 0.51 / 32768
    loud = soundfile.read(usable["float, too loud.wav"].path)[0]
    assert np.abs(loud - noise[8] / np.abs(noise[8]).max()).max() <= 1.1 / 32768
    offset = soundfile.read(usable["offset.wav"].path)[0]
    assert abs(offset.mean()) < 1e-5 and np.abs(offset - (noise[9] - noise[9].mean())).max() < 2e-4


@contextlib.contextmanager
def as_nobody(closed, folder):
    """Without the right to read `closed`: who may read everything gives that up meanwhile."""
    closed.chmod(0)
    root = os.geteuid() == 0
    if root:
        for path in takewhile(Path(tempfile.gettempdir()).__ne__, (folder, *folder.parents)):
            path.chmod(0o777)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_speaker_with_too_few_is_dropped_counted_and_named(work, capsys):
    last = shuffled([f"s{i}" for i in range(10)], seed=0)[-1]  # nothing is written after what it leaves
    for name in ("1", "2", "3"):
        (work / f"speech/s1/{name}.wav").unlink()
        (work / f"speech/{last}/{name}.wav").write_text("not audio")
    rows, out = run(capsys)
    assert {row.speaker for row in rows} == {f"s{i}" for i in range(10)} - {"s1", last}
    assert "dropped speakers: 2 - " in out and "s1 (1 usable)" in out and f"{last} (1 usable)" in out
    assert skipped()["s1/0.wav"] == skipped()[f"{last}/0.wav"] == "too few of this speaker: 1, 2 are needed"
    assert {path.name for path in Path("data/audio").iterdir()} == {Path(row.path).name for row in rows}


def test_an_error_leaves_no_output(work):
    for speaker in ("s1", "s2", "s3"):
        shutil.rmtree(work / "speech" / speaker)
    with pytest.raises(InputError, match="7 speakers with at least 2 usable utterances .* 8 are needed"):
        run()
    assert not list(Path("data").iterdir())
    with pytest.raises(InputError, match="data.path: nowhere: no such folder"):
        run(path="nowhere")
    assert not list(Path("data").iterdir())


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
        "validation": 2,
        "test": 2,
    }
    Path("trials.txt").write_text("1 s0/1.wav s0/2.wav\n0 s0/1.wav s9/77.wav\n")
    with pytest.raises(InputError, match="trials.txt: line 2: s9/77.wav: no such file"):
        run(trials="trials.txt")


def test_hidden_folders_are_passed_over_and_it_is_said_once(work, capsys):
    shutil.copytree("speech/s0", "speech/.ipynb_checkpoints")
    shutil.copytree("speech/s0", "speech/s1/.cache")
    rows, out = run(capsys)
    assert len({row.speaker for row in rows}) == 10 and skipped() == {}
    assert out.count("passed over: names that begin with a dot (2)\n") == 1


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


def test_speakers_below_regions(work, capsys):
    for i in range(10):
        (work / f"speech/region{i % 2}").mkdir(exist_ok=True)
        (work / f"speech/s{i}").rename(work / f"speech/region{i % 2}/s{i}")
    rows, _ = run(level=2)
    assert {row.speaker for row in rows} == {f"s{i}" for i in range(10)}
    with pytest.raises(InputError, match="2 speakers with at least 2 usable"):
        run()
    assert "if those are the speakers, set data.level: 2" in capsys.readouterr().out


def test_synthetic_speakers(work):
    rows, _ = run(source="synthetic", speakers=8, utterances_per_speaker=2, max_seconds=3)
    assert Counter(Counter(row.speaker for row in rows).values()) == {2: 8}
    assert all(2 <= row.seconds <= 3 for row in rows)


def test_real_speech_in_a_folder(work, shared):
    rows, _ = run(path=str(shared / "speech"), speakers=20, utterances_per_speaker=2)
    assert {name: len(names) for name, names in splits(rows).items()} == {
        "calibration": 2,
        "finetune": 6,
        "validation": 4,
        "test": 8,
    }


def test_recordings_whose_channels_differ_are_counted_once(work, capsys):
    """Noise in turns on the two sides, as in a call."""
    turns = np.repeat(np.arange(12) % 2, 4_000)[:, None] == [0, 1]
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (len(turns), 2))
    soundfile.write("speech/s0/0.wav", noise * turns, 16_000)
    soundfile.write("speech/s0/1.wav", noise[::-1, :1] * [1, 0.5], 16_000)
    _, out = run(capsys, utterances_per_speaker=4)
    notes = [line for line in out.splitlines() if line.startswith("note: channels differ")]
    assert len(notes) == 1 and "in 1 recording, such as s0/0.wav" in notes[0]
