"""The software bill of materials (CycloneDX 1.6), and the licences in it as a list to read."""

import json
import subprocess
import sys
from importlib.metadata import metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from src.runtime.errors import InputError

REQUIREMENTS = Path(__file__).parents[2] / "requirements.in"
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


def bill(model, synthetic) -> dict:
    """The bill of a model that is made by what is installed.

    model: its CycloneDX component, with a `bom-ref`. synthetic: whether speech from espeak-ng is part of it. Components
    are the packages of requirements.in and all that these need, as they are installed: the scope is `required` for
    those that run the model, `excluded` for those that only made it. Nothing in it changes with time or place. Raises
    InputError when one is not installed or the environment cannot be read.
    """
    found = _environment()
    refs = {canonicalize_name(component["name"]): component["bom-ref"] for component in found["components"]}
    named = [
        canonicalize_name(Requirement(line).name)
        for line in REQUIREMENTS.read_text().splitlines()
        if line and not line.startswith("#")
    ]
    runtime, needed = (_closure(names, refs) for names in (RUNTIME, named))
    missing = sorted((runtime | needed) - refs.keys())
    if missing:
        raise InputError(f"requirements.in: {', '.join(missing)}: not installed")
    required, kept = ({refs[name] for name in names} for names in (runtime, needed))
    found["metadata"]["component"] = model
    found["components"] = [
        _licensed(component) | {"scope": "required" if component["bom-ref"] in required else "excluded"}
        for component in found["components"]
        if component["bom-ref"] in kept
    ] + [ESPEAK] * synthetic
    found["dependencies"] = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", ()) if ref in kept]}
        for entry in found["dependencies"]
        if entry["ref"] in kept
    ] + [{"ref": model["bom-ref"], "dependsOn": sorted(refs[name] for name in RUNTIME)}]
    return found


def _environment():
    command = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--output-reproducible",
        "--spec-version",
        "1.6",
        "--output-format",
        "JSON",
        "--no-validate",
    ]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise InputError(f"the bill of materials cannot be made: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def _closure(names, installed):
    """These packages and all that they need, installed or not, without the extras that nothing asks for (the graph of
    the bill has them all)."""
    found, todo = set(), [(name, "") for name in names]
    while todo:
        name, extra = todo.pop()
        if (name, extra) not in found:
            found.add((name, extra))
            for needed in map(Requirement, name in installed and requires(name) or ()):
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo += [(canonicalize_name(needed.name), each) for each in ("", *needed.extras)]
    return {name for name, _ in found}


def _licensed(component):
    """A component, with the licence that its package names in words where it has no identifier and no classifier."""
    told = metadata(component["name"]).get("License")
    if "licenses" in component or not told:
        return component
    return {**component, "licenses": [{"license": {"name": told.strip().splitlines()[0]}}]}


def licences(found) -> str:
    """A bill's components and their licences as Markdown."""
    runs = [each for each in found["components"] if each["scope"] == "required"]
    made = [each for each in found["components"] if each["scope"] != "required"]
    parts = [
        "# Licences",
        "What runs the model:",
        _table(runs),
        "What made it, and is not needed to run it:",
        _table(made),
    ]
    if ESPEAK in found["components"]:
        parts.append(
            "The default data, and the speech that the encoder of the repository was trained on, were made "
            "with espeak-ng, whose licence is GPL-3.0-or-later. It was used as a program: none of it is in "
            "the model."
        )
    return "\n\n".join(parts) + "\n"


def _table(components):
    rows = (f"| {each['name']} | {each.get('version', '')} | {licence(each)} |" for each in components)
    return "\n".join(["| package | version | licence |", "| --- | --- | --- |", *rows])


def licence(component) -> str:
    """A component's licences in a line: identifiers where there are any, else names."""
    found = component.get("licenses", ())
    told = [each["expression"] if "expression" in each else each["license"].get("id", "") for each in found]
    names = [each["license"].get("name", "").rpartition(" :: ")[2] for each in found if "license" in each]
    return (
        " AND ".join(dict.fromkeys(filter(None, told)))
        or ", ".join(dict.fromkeys(filter(None, names)))
        or "not declared in its metadata"
    )
