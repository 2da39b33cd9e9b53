"""The software bill of materials (CycloneDX 1.6), and the licences in it as a list to read."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from src.runtime.errors import InputError

ROOT = Path(__file__).parents[2]
RUNTIME = ("onnxruntime", "numpy", "soundfile")  # what runs the model; all the rest made it
ESPEAK = {
    "type": "application",
    "bom-ref": "espeak-ng",
    "name": "espeak-ng",
    "scope": "excluded",
    "description": "Made the synthetic speech of the default data and of the encoder in the repository; used as a "
    "program, installed by espeakng-loader.",
    "licenses": [{"license": {"id": "GPL-3.0-or-later"}}],
    "externalReferences": [{"type": "website", "url": "https://github.com/espeak-ng/espeak-ng"}],
}


def bill(model: dict, synthetic: bool) -> dict:
    """The bill of a model that is made by what is installed.

    model: its CycloneDX component, with a `bom-ref`. synthetic: whether speech from espeak-ng is part of it. Components
    are the installed packages of requirements.txt, which are those of pyproject.toml and all that these need: the scope
    is `required` for those that run the model, `excluded` for those that only made it. Nothing in it changes with time
    or place. Raises InputError when one of pyproject.toml is not installed or the environment cannot be read.
    """
    document = _environment()
    refs: dict[str, str] = {canonicalize_name(part["name"]): part["bom-ref"] for part in document["components"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    missing = sorted({canonicalize_name(Requirement(line).name) for line in project["dependencies"]} - refs.keys())
    if missing:
        raise InputError(f"pyproject.toml: {', '.join(missing)}: not installed")
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    listed = {refs[name] for name in map(canonicalize_name, pinned) if name in refs}
    required = {refs[name] for name in set().union(*map(_needed, RUNTIME))}
    document["metadata"]["component"] = model
    document["components"] = [
        _licensed(component) | {"scope": "required" if component["bom-ref"] in required else "excluded"}
        for component in document["components"]
        if component["bom-ref"] in listed
    ] + [ESPEAK] * synthetic
    document["dependencies"] = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", ()) if ref in listed]}
        for entry in document["dependencies"]
        if entry["ref"] in listed
    ] + [{"ref": model["bom-ref"], "dependsOn": sorted(refs[name] for name in RUNTIME)}]
    return document


def _environment():
    options = "--output-reproducible --spec-version 1.6 --output-format JSON --no-validate".split()
    command = [sys.executable, "-m", "cyclonedx_py", "environment", *options]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise InputError(f"the bill of materials cannot be made: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def _needed(package: str) -> set[str]:
    """The names of a package and of all that it needs, without its extras."""
    needs = [Requirement(line) for line in requires(package) or ()]
    plain = [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return {str(canonicalize_name(package))}.union(*map(_needed, plain))


def _licensed(component: dict) -> dict:
    """A component, with the licence that its package names in words where it has no identifier and no classifier."""
    about = metadata(component["name"])
    text = about["License"].strip() if "License" in about else ""
    if "licenses" in component or not text:
        return component
    return {**component, "licenses": [{"license": {"name": text.splitlines()[0]}}]}


def licences(document: dict) -> str:
    """A bill's components and their licences as Markdown."""
    runs = [component for component in document["components"] if component["scope"] == "required"]
    made = [component for component in document["components"] if component["scope"] != "required"]
    parts = ["What runs the model:", _table(runs), "What made it, and is not needed to run it:", _table(made)]
    if ESPEAK in made:
        parts.append(
            "The default data, and the speech that the encoder of the repository was trained on, were made with "
            "espeak-ng, whose licence is GPL-3.0-or-later. It was used as a program: none of it is in the model."
        )
    return "\n\n".join(["# Licences", *parts]) + "\n"


def _table(components):
    rows = [f"| {part['name']} | {part.get('version', '')} | {licence(part)} |" for part in components]
    return "\n".join(["| package | version | licence |", "| --- | --- | --- |", *rows])


def licence(component: dict) -> str:
    """A component's licences in a line: identifiers where there are any, else names."""
    entries = [{**entry, **entry.get("license", {})} for entry in component.get("licenses", ())]
    identifiers = [entry.get("expression") or entry.get("id") for entry in entries]
    names = [entry.get("name", "").rpartition(" :: ")[2] for entry in entries]
    listed = " AND ".join(dict.fromkeys(filter(None, identifiers))) or ", ".join(dict.fromkeys(filter(None, names)))
    return listed or "not declared in its metadata"
