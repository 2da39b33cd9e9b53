"""The model on a folder: what is written, what is skipped, and that an interrupted run goes on."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from src import embed
from src.evaluate import extract
from src.runtime import engine
from src.runtime.audio import waveform
from src.runtime.errors import InputError
from tests.evaluate.conftest import save_model
from tests.workspace import ROOT

NAMES = [f"s{number % 3}/{number:02}.{suffix}" for number, suffix in enumerate(("wav", "flac", "ogg", "WAV") * 5)]
KILLED = """
import os, signal, sys, time
from src.common.command import command
from src.evaluate import extract
signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts the tests may have it ignored
count = 0
plain = extract.waveform
def waveform(*arguments, **settings):
    global count
    count += 1
    if count == 9:
        while len(open("out.npz.partial", "rb").readlines()) < 7:  # the main thread writes what was read
            time.sleep(0.01)
        os.kill(os.getpid(), signal.{signal})
        time.sleep(2)  # the main thread hears of SIGINT when it next runs; the rest must not be done before
    return plain(*arguments, **settings)
extract.waveform = waveform
sys.argv = ["embed", "speech", "--model", "a.onnx", "--workers", "1", "--out", "out.npz", *{arguments}]
command("src.embed")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(NAMES):
        path = tmp_path / "speech" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 8000 + 100 * seed), 16_000)
    save_model("a.onnx")
    save_model("b.onnx", factor=2)
    return tmp_path


def run(**changes):
    embed.embed(**{"folder": "speech", "out": "out.npz", "model": "a.onnx", **changes})
    with np.load(changes.get("out", "out.npz")) as found:
        return found["paths"].tolist(), found["embeddings"], found["skipped"].tolist()


def by_hand(names, model="a.onnx"):
    session = engine.session(model)
    return np.stack([engine.embedding(session, waveform(f"speech/{name}")[0]) for name in names])


def killed(how, *arguments):
    output = subprocess.run(
        [sys.executable, "-c", KILLED.format(signal=how, arguments=arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert not os.path.exists("out.npz")
    assert output.returncode == {"SIGKILL": -signal.SIGKILL, "SIGINT": 130}[how], output.stderr
    return output


def test_every_file_has_its_embedding(place):
    paths, embeddings, skipped = run(workers=3)
    assert paths == sorted(NAMES) and skipped == [] and embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, by_hand(paths))
    assert sorted(os.listdir()) == ["a.onnx", "b.onnx", "out.npz", "speech"]
    first = (place / "out.npz").read_bytes()
    run(workers=1)
    assert (place / "out.npz").read_bytes() == first


def test_what_cannot_be_used_is_listed_with_the_reason(place, capsys):
    (place / "speech/empty.wav").touch()
    (place / "speech/text.mp3").write_text("no sound")
    (place / "speech/gone.wav").symlink_to("nowhere")
    soundfile.write("speech/short.wav", np.ones(100), 16_000)
    paths, _, skipped = run()
    assert paths == sorted(NAMES)
    found = dict(skipped)
    assert list(found) == ["empty.wav", "gone.wav", "short.wav", "text.mp3"]
    assert found["empty.wav"] == "empty" and found["short.wav"].startswith("too short")
    assert found["text.mp3"].startswith("not decodable")
    told = capsys.readouterr()
    assert all(f"skipped: {name}: {reason}\n" in told.err for name, reason in skipped)
    assert f"{len(NAMES)} embeddings; 4 skipped" in told.out and "\r" not in told.err


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_an_interrupted_run_goes_on(place, capsys, monkeypatch, how):
    output = killed(how)
    done = len(Path("out.npz.partial").read_bytes().splitlines()) - 1
    assert 6 <= done <= 9
    if how == "SIGINT":
        assert output.stderr == "the same command goes on from here\ninterrupted\n"
    opened = []
    monkeypatch.setattr(extract, "waveform", lambda path, **settings: opened.append(path) or waveform(path, **settings))
    _paths, embeddings, _ = run()
    assert len(opened) == len(NAMES) - done
    np.testing.assert_array_equal(embeddings, by_hand(sorted(NAMES)))
    assert f"{done} of {len(NAMES)} were done before" in capsys.readouterr().err
    assert not os.path.exists("out.npz.partial")


def test_what_has_changed_since_is_done_anew(place):
    killed("SIGKILL")
    first, gone = sorted(NAMES)[:2]
    soundfile.write(f"speech/{first}", np.random.default_rng(99).uniform(-0.5, 0.5, 9000), 16_000)
    os.unlink(f"speech/{gone}")
    paths, embeddings, _ = run()
    assert gone not in paths
    np.testing.assert_array_equal(embeddings, by_hand(paths))


def test_another_model_starts_anew(place):
    killed("SIGKILL")
    paths, embeddings, _ = run(model="b.onnx")
    np.testing.assert_array_equal(embeddings, by_hand(paths, "b.onnx"))


@pytest.mark.parametrize("changed", [{"max_seconds": 0.4}, {"channel": 2}])
def test_resumed_with_another_setting_it_equals_a_fresh_run(place, changed):
    for name in NAMES[:4]:
        sound, rate = soundfile.read(f"speech/{name}")
        soundfile.write(f"speech/{name}", np.stack([sound, sound[::-1]], axis=1), rate)
    run(**changed)
    fresh = (place / "out.npz").read_bytes()
    (place / "out.npz").unlink()
    killed("SIGKILL")
    run(**changed)
    assert (place / "out.npz").read_bytes() == fresh


@pytest.mark.parametrize("end", [b"", b"[", b'["1f", false, "AAAA"]', b'["1f", false, "AAA"]\n', b"\xff\n"])
def test_what_a_full_disk_left_half_written_is_done_anew(place, end):
    run()
    fresh = (place / "out.npz").read_bytes()
    (place / "out.npz").unlink()
    killed("SIGKILL")
    with open("out.npz.partial", "ab") as file:
        file.write(end)
    killed("SIGKILL")
    run()
    assert (place / "out.npz").read_bytes() == fresh


def test_two_runs_do_not_write_the_same_file(place):
    killed("SIGKILL")
    with open("out.npz.partial") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing it"):
            run()


def test_channels_that_differ_are_said_once(place, capsys):
    rng = np.random.default_rng(0)
    for name in ("call1.wav", "call2.wav"):
        turns = np.repeat(rng.uniform(0, 1, (40, 2)) > 0.5, 400, axis=0)
        soundfile.write(f"speech/{name}", turns * rng.uniform(-0.5, 0.5, turns.shape), 16_000)
    run()
    assert capsys.readouterr().err.splitlines() == [
        "note: 2 files, such as call1.wav: channels differ (two speakers, or opposite polarity), and are averaged; "
        "--channel chooses one"
    ]
    _, _chosen, _ = run(channel=2)
    assert not capsys.readouterr().err
    assert dict(run(channel=3)[2])["call1.wav"] == "no channel 3: it has 2"


def test_long_recordings_are_heard_in_windows(place):
    _, whole, _ = run()
    _, heard, _ = run(max_seconds=0.4)
    session = engine.session("a.onnx")
    samples = waveform(f"speech/{sorted(NAMES)[0]}")[0]
    parts = np.array_split(samples, -(-len(samples) // 6400))
    assert len(parts) > 1
    mean = np.mean([engine.embedding(session, part) for part in parts], axis=0)
    np.testing.assert_array_equal(heard[0], mean)
    assert not np.array_equal(whole[0], heard[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "nowhere"}, "nowhere: no such folder"),
        ({"folder": "empty"}, "empty: no audio file that can be read in it"),
        ({"folder": "broken"}, "broken: none of 1 files can be used; a.wav: empty"),
        ({"model": "nowhere.onnx"}, "nowhere.onnx: not a model"),
    ],
)
def test_faults_are_told_in_a_line(place, changes, message):
    (place / "empty").mkdir()
    (place / "broken").mkdir()
    (place / "broken/a.wav").touch()
    with pytest.raises(InputError, match=message):
        run(**changes)
    assert not os.path.exists("out.npz")
