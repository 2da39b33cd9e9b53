"""Where the figures come from: the machine and the versions that time was measured with, the code, the parameters."""

import platform
import subprocess

import yaml

from src.reporting.results import Results

CODE = ("src", "dvc.yaml", "params.yaml", "models/pretrained")


def facts(results: Results) -> list[tuple[str, str]]:
    """(what, value) pairs; several values where the latency files differ."""
    timings = [model.timing for model in results.models.values()]
    measured = [
        ("CPU", lambda timing: timing["cpu"]["model"]),
        ("CPU extensions", lambda timing: ", ".join(timing["cpu"]["extensions"]) or "none known"),
        ("time measured on", lambda timing: f"{timing['seconds']:g} s of audio, batch 1"),
        ("threads", lambda timing: str(timing["threads"])),
        ("rounds", lambda timing: str(timing["rounds"])),
        *((name, lambda timing, name=name: timing["versions"][name]) for name in timings[0]["versions"]),
    ]
    pairs = [(title, " / ".join(dict.fromkeys(map(value, timings)))) for title, value in measured]
    pairs.append(("Python", platform.python_version()))
    if revision := commit():
        pairs.append(("commit", revision))
    return pairs


def commit():
    """The commit that is checked out, and whether the code or the parameters differ from it; None outside Git.

    Outputs do not count: DVC removes them before a stage runs, so that they always differ.
    """
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}, with changes not committed" if changed else head


def _git(*arguments):
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def parameters(results: Results) -> str:
    """The parameters of the run as YAML; those of `pretrain` are left out, which is no part of it."""
    shown = results.params.model_dump(mode="json", exclude={"pretrain"})
    return yaml.safe_dump(shown, sort_keys=False, default_flow_style=None).rstrip()
