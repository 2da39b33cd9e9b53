"""A folder in which stages run as a user runs them, on a small configuration of the real thing."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
SMALL = {
    "data": {"speakers": 16, "utterances_per_speaker": 4, "max_seconds": 3.0},
    "evaluate": {"bootstrap": 100},
    "profile": {"rounds": 3},
    "ptq": {"utterances": 6},
    "qat_search": {"n_trials": 2, "steps": 2, "crop_seconds": 0.5, "batch_size": [4]},
    "breakdown": {"seconds": [1.0], "snr": [5], "utterances": 2},
}


def workspace(folder, changes):
    """A folder in which stages run: params.yaml with changes, the shipped encoder."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] = {**params[section], **values} if isinstance(values, dict) else values
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(ROOT / "models/pretrained", folder / "models/pretrained")
    return folder


def run(folder, stage, **env):
    return subprocess.run(
        [sys.executable, "-m", f"src.{stage}"], cwd=folder, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


def read(folder, name):
    return json.loads((folder / f"metrics/{name}.json").read_text())


def programs(document):
    """The Python blocks of a Markdown file of the repository."""
    return [part.split("```")[0] for part in (ROOT / document).read_text().split("```python\n")[1:]]


def recomputed(program, folder):
    """What a program of docs/evaluation.md prints in a folder: {model: [its figures]}."""
    output = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert output.returncode == 0 and not output.stderr, output.stderr
    lines = [line.split() for line in output.stdout.splitlines()]
    return {Path(path).stem: [float(number) for number in numbers] for path, *numbers in lines}
