"""The commands of the README's quick start, run as a user runs them, in a clone with a small configuration."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workspace import ROOT, call, commit, small_clone

README = (ROOT / "README.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.slow


def shell(folder, command, placeholders=None, before=(), **env):
    """What a command of the README prints in a folder. placeholders: what to put for its examples; before: arguments
    of a program that runs it."""
    assert command in README
    for example, real in (placeholders or {}).items():
        assert example in command
        command = command.replace(example, str(real))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTEST_"))}
    process = subprocess.run(
        [*before, "bash", "-c", f". .venv/bin/activate && {command}"],
        cwd=folder,
        env=inherited | {"HF_HOME": str(folder / ".venv/hub")} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


def metric(folder, name):
    return json.loads((folder / f"metrics/{name}.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a clone in which `make repro` ran, committed; what it printed)."""
    folder = small_clone(tmp_path_factory.mktemp("documentation") / "made")
    printed = shell(folder, "make repro")
    commit(folder, "Run")
    return folder, printed


@pytest.fixture
def place(made, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(made[0], tmp_path / "place", symlinks=True))


def test_make_repro_gives_the_models_and_prints_the_table_of_the_report(made):
    folder, printed = made
    table = [line for line in (folder / "metrics/report.md").read_text().splitlines() if line.startswith("|")]
    assert table[4].startswith("| INT8 QAT") and all(line in printed for line in table[:5])
    assert {path.name for path in (folder / "models").glob("*.onnx")} == {"fp32.onnx", "ptq.onnx", "qat.onnx"}
    assert call(folder, "dvc", "status") == "Data and pipelines are up to date.\n"


def test_own_recordings(place, shared, tmp_path):
    speech = Path(shutil.copytree(shared / "speech", tmp_path / "speech"))
    command = "dvc exp run -S data.source=folder -S data.path=/path/to/speech"
    shell(place, command, {"/path/to/speech": speech})
    with open(place / "data/manifest.csv") as file:
        speakers = {row["speaker"] for row in csv.DictReader(file)}
    assert speakers <= {folder.name for folder in speech.iterdir()} and metric(place, "baseline")["eer"] < 0.45
    assert abs(metric(place, "ptq")["eer_difference"]) < 0.05


def test_the_published_encoder_and_data_set(place, shared):
    hub = (sys.executable, shared / "hub/serve.py", shared / "hub/root", "--")
    shell(place, "dvc exp run -S encoder.source=speechbrain/spkrec-ecapa-voxceleb -S data.source=hub", before=hub)
    assert metric(place, "profile")["params_million"] > 20 and metric(place, "qat_search")["size_mb"] < 21
