"""dvc.yaml: what it lists is what the stages use."""

import ast
from pathlib import Path

import pytest
import yaml

from src.common.params import Params

ROOT = Path(__file__).parent.parent
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]
# They read, check and tell, and compute nothing: a change there must not run everything again.
UNLISTED = {"src/__init__.py"}


def imports(path):
    """The project's modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            file = ROOT / (name.replace(".", "/") + ".py")
            if name.startswith("src.") and file.is_file():
                yield file


def reached(path, known=None):
    known = set() if known is None else known
    for file in imports(path):
        if file not in known:
            known.add(file)
            reached(file, known)
    return known


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_the_code_it_runs(name):
    stage = STAGES[name]
    assert stage["cmd"] == f"python -m src.{name}"
    listed = [ROOT / dependency for dependency in stage["deps"]]
    for file in {ROOT / f"src/{name}.py", *reached(ROOT / f"src/{name}.py")}:
        covered = any(file == dependency or dependency in file.parents for dependency in listed)
        assert covered or str(file.relative_to(ROOT)) in UNLISTED or file.parent == ROOT / "src/common", (
            f"{name} uses {file.relative_to(ROOT)}"
        )


@pytest.mark.parametrize("name", STAGES)
def test_code_and_parameters_that_a_stage_lists_exist(name):
    for dependency in STAGES[name]["deps"]:
        if dependency.startswith("src/"):
            assert (ROOT / dependency).exists(), dependency
    for parameter in STAGES[name].get("params", ()):
        model = Params
        for key in parameter.split("."):
            assert key in model.model_fields, parameter
            model = model.model_fields[key].annotation


def test_metrics_are_in_git_and_only_pretrain_is_frozen():
    for name, stage in STAGES.items():
        assert stage.get("frozen", False) == (name == "pretrain")
        for entry in stage.get("metrics", ()):
            ((path, options),) = entry.items()
            assert options["cache"] is False and path.startswith("metrics/")


def test_the_artifact_is_an_output():
    (artifact,) = PIPELINE["artifacts"].values()
    outputs = [Path(out) for stage in STAGES.values() for out in stage.get("outs", ()) if isinstance(out, str)]
    assert artifact["type"] == "model" and Path(artifact["path"]).parent in outputs


def test_timings_are_kept_by_dvc_but_are_no_metrics_that_its_tables_compare():
    for stage, name in (("profile", "latency"), ("ptq", "ptq_latency"), ("qat_search", "qat_search_latency")):
        path = f"metrics/{name}.json"
        assert path in STAGES[stage]["outs"] and path not in str(STAGES[stage]["metrics"])
