"""An evaluation that was killed goes on from the embeddings that were done."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from src.data import manifest
from src.evaluate import extract, store
from src.evaluate.evaluation import evaluate
from src.runtime.errors import InputError
from src.runtime.scoring import normalised
from tests.evaluate.conftest import save_model
from tests.evaluate.test_accuracy import CONFIG
from tests.workspace import ROOT

KILLED = """
import os, signal, time
from src.common import params
from src.data import manifest
from src.evaluate import extract
from src.evaluate.evaluation import evaluate
count = 0
plain = extract.load_path
def load_path(path):
    global count
    count += 1
    if count > 16:
        while len(open(extract.STORES / "fp32.jsonl", "rb").readlines()) < 10:  # the main thread writes what was read
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(path)
extract.load_path = load_path
extract.os.cpu_count = lambda: 1
evaluate("a.onnx", "fp32", manifest.read(), params.load(ROOT + "/params.yaml"))
"""


@pytest.fixture
def killed(project):
    """The manifest of a run of `evaluate` that was killed when it read the 17th recording."""
    manifest.write(project)
    command = [sys.executable, "-c", f"ROOT = {str(ROOT)!r}{KILLED}"]
    output = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert output.returncode == -signal.SIGKILL, output.stderr
    return project


def read_since(monkeypatch):
    opened, plain = [], extract.load_path
    monkeypatch.setattr(extract, "load_path", lambda path: opened.append(os.path.basename(path)) or plain(path))
    return opened


def test_a_killed_evaluation_goes_on_and_leaves_nothing(killed, monkeypatch, capsys):
    opened = read_since(monkeypatch)
    summary = evaluate("a.onnx", "fp32", killed, CONFIG)
    first = capsys.readouterr().err
    assert "of 24 were done before" in first and len(opened) < len(killed) - 8
    assert len(set(opened)) == len(opened) and os.listdir(extract.STORES) == []
    assert evaluate("a.onnx", "again", killed, CONFIG) == summary and "done before" not in capsys.readouterr().err


def test_audio_that_has_changed_is_done_anew_and_what_has_another_name_is_not(killed, monkeypatch):
    os.replace("00.flac", "moved.flac")
    os.replace("10.flac", "01.flac")
    moved = [
        replace(row, path={"00.flac": "moved.flac", "10.flac": "01.flac"}.get(row.path, row.path)) for row in killed
    ]
    opened = read_since(monkeypatch)
    with extract.resumable("a.onnx", extract.STORES / "fp32.jsonl") as embedded:
        values = embedded(moved[:24])
    np.testing.assert_array_equal(values, extract.embed("a.onnx", moved[:24]))
    assert "moved.flac" not in opened and not os.path.exists(extract.STORES / "fp32.jsonl")


def test_another_model_of_the_same_name_starts_anew(killed, monkeypatch):
    save_model("a.onnx", factor=-3, size=7)
    opened = read_since(monkeypatch)
    with extract.resumable("a.onnx", extract.STORES / "fp32.jsonl") as embedded:
        assert embedded(killed).shape == (len(killed), 7)
    assert len(opened) == len(killed)


def test_a_fault_keeps_what_was_done(project):
    path = extract.STORES / "a.jsonl"
    os.truncate(project[5].path, 0)
    with pytest.raises(InputError, match=r"11.flac: cannot be read"), extract.resumable("a.onnx", path) as embedded:
        embedded(project)
    with store.opened(path, extract.settings("a.onnx", audio="manifest")) as done:
        assert len(done) >= 5


def test_a_changed_byte_in_a_store_is_noticed(tmp_path):
    path, values = tmp_path / "a.jsonl", normalised(np.random.default_rng(0).normal(size=(3, 4))).astype(np.float32)
    with store.opened(path, {"model": "a"}) as done:
        for number, vector in enumerate(values):
            done.add(store.Embedding(str(number), vector, bool(number % 2)))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2].replace(b", ", b" ,", 1) + lines[3])
    with store.opened(path, {"model": "a"}) as done:
        assert len(done) == 1 and done.get("1") is None and done.get(None) is None
        np.testing.assert_array_equal(done.get("0").values, values[0])
    assert path.read_bytes() == lines[0] + lines[1]
    with store.opened(path, {"model": "b"}) as done:
        assert len(done) == 0
