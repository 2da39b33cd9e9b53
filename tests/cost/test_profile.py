"""The stage on a small encoder: its files, and that SpeechBrain's count and the exported file's agree."""

import csv
import json

import pytest

from src import profile
from src.common import layout
from src.cost import latency
from src.runtime.errors import InputError
from tests.encoder.helpers import SHALLOW
from tests.workspace import SMALL, read, workspace


def test_files_of_the_stage(pipeline):
    folder, _ = pipeline
    metrics = read(folder, "profile")
    layers = list(csv.DictReader((folder / layout.table("macs")).open()))
    frames = 301
    assert sum(float(row["gmacs"]) for row in layers) == pytest.approx(metrics["gmacs"], abs=1e-9)
    assert sum(float(row["share"]) for row in layers) == pytest.approx(1, abs=1e-4)
    assert metrics["gflops"] == 2 * metrics["gmacs"]
    # The rewrite has no BatchNorm, and sees the utterance's mean and deviation once instead of once a frame.
    norms = sum(float(row["gmacs"]) for row in layers if row["type"] == "BatchNorm1d")
    saved = 2 * SHALLOW["channels"][-1] * SHALLOW["attention_channels"] * (frames - 1) / 1e9
    assert metrics["rewritten_gmacs"] == pytest.approx(metrics["gmacs"] - norms - saved, abs=1e-9)
    assert metrics["front_end_gmacs"] > 0
    assert metrics["int8_mac_share"] == 0
    assert metrics["size_mb"] == (folder / latency.FP32).stat().st_size / 1e6

    timings = json.loads((folder / layout.latency("fp32")).read_text())
    assert list(timings["models"]) == ["speechbrain", "fp32"] and timings["rounds"] == SMALL["profile"]["rounds"]
    assert not list(folder.glob("metrics/*.partial"))


def test_needs_the_exported_file(tmp_path, monkeypatch):
    monkeypatch.chdir(workspace(tmp_path, SMALL))
    with pytest.raises(InputError, match="run the stage baseline"):
        profile.main()
    assert not (tmp_path / "metrics").exists()
