"""Where the figures come from: the machine and the versions that time was measured with, the code, the parameters."""

import io
import platform

from ruamel.yaml import YAML

from src.common.git import code_version
from src.reporting.results import Results


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
    found = [(title, " / ".join(dict.fromkeys(map(value, timings)))) for title, value in measured]
    found.append(("Python", platform.python_version()))
    found.append(("commit", _commit()))
    return found


def _commit():
    version = code_version()
    if isinstance(version, str):
        return version
    return version["id"][:12] + ", with changes not committed" * version["modified"]


def parameters(results: Results) -> str:
    """The parameters of the run as YAML 1.2, without those of `pretrain`, which is no part of it, and without the URL of
    the search's database, which may have a password in it."""
    shown = results.params.model_dump(mode="json", exclude={"pretrain": True, "qat_search": {"storage"}})
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(shown, text)
    return text.getvalue().rstrip()
