"""The stage on a tiny encoder: its files, and that SpeechBrain's count and the exported file's agree."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from src import profile
from src.common import layout
from src.cost import latency
from src.encoder import export, load
from src.runtime.errors import InputError
from tests.encoder.conftest import checkpoint  # noqa: F401 (a fixture)
from tests.encoder.helpers import NETWORK


@pytest.fixture
def workplace(checkpoint, tmp_path, monkeypatch):
    shutil.copytree(checkpoint, tmp_path / "tiny")
    config = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
    config["encoder"]["source"] = "tiny"
    config["profile"] = {"seconds": 0.5, "rounds": 4, "threads": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_of_the_stage(workplace, capsys):
    (workplace / "models").mkdir()
    export.export_onnx(torch.nn.Sequential(*load.plain("tiny")).eval(), latency.FP32)
    profile.main()

    metrics = json.loads(layout.details("profile").read_text())
    layers = list(csv.DictReader(layout.table("macs").open()))
    frames = 51
    assert sum(float(row["gmacs"]) for row in layers) == pytest.approx(metrics["gmacs"], abs=1e-9)
    assert sum(float(row["share"]) for row in layers) == pytest.approx(1, abs=1e-4)
    assert metrics["gflops"] == 2 * metrics["gmacs"]
    # The rewrite has no BatchNorm, and sees the utterance's mean and deviation once instead of once a frame.
    norms = sum(float(row["gmacs"]) for row in layers if row["type"] == "BatchNorm1d")
    saved = 2 * NETWORK["channels"][-1] * NETWORK["attention_channels"] * (frames - 1) / 1e9
    assert metrics["rewritten_gmacs"] == pytest.approx(metrics["gmacs"] - norms - saved, abs=1e-9)
    assert metrics["front_end_gmacs"] > 0
    assert metrics["int8_mac_share"] == 0
    assert metrics["size_mb"] == Path(latency.FP32).stat().st_size / 1e6

    timings = json.loads(layout.latency("fp32").read_text())
    assert list(timings["models"]) == ["speechbrain", "fp32"] and timings["rounds"] == 4
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert not list(workplace.glob("metrics/*.partial"))


def test_needs_the_exported_file(workplace):
    with pytest.raises(InputError, match="run the stage baseline"):
        profile.main()
    assert not (workplace / "metrics").exists()
