"""dvc.yaml: what it lists is what the stages use."""

from pathlib import Path

import pytest
import yaml

from src.common import layout
from src.common.params import Params
from tests.test_imports import imported

ROOT = Path(__file__).parent.parent
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]
# They read, check and tell, and compute nothing: a change there must not run everything again.
UNLISTED = {"src/__init__.py"}


def reached(path, known=None):
    known = set() if known is None else known
    for file in imported(path):
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


def test_metrics_tables_and_details_are_in_git_and_stages_are_restored_from_the_run_cache():
    """DVC keeps no run-cache for a stage with an uncached output that is neither a metric nor a plot."""
    for name, stage in STAGES.items():
        for entry in [*stage.get("metrics", ()), *stage.get("plots", ())]:
            ((path, options),) = entry.items()
            assert options["cache"] is False and path.startswith("metrics/")
        if name not in ("link_data", "report"):  # they take seconds
            assert all(isinstance(out, str) for out in stage.get("outs", ())), name


def test_nothing_in_the_pipeline_depends_on_the_stage_that_trains_the_shipped_encoder():
    (stage,) = yaml.safe_load((ROOT / "models/pretrained/dvc.yaml").read_text())["stages"].values()
    assert stage["cmd"] == "python -m src.pretrain" and "outs" not in stage and "deps" not in stage
    assert "pretrain" not in STAGES and "src.pretrain" not in str(PIPELINE)


def test_the_artifact_is_an_output():
    (artifact,) = PIPELINE["artifacts"].values()
    outputs = [Path(out) for stage in STAGES.values() for out in stage.get("outs", ()) if isinstance(out, str)]
    assert artifact["type"] == "model" and Path(artifact["path"]).parent in outputs


def test_timings_are_kept_by_dvc_but_are_no_metrics_that_its_tables_compare():
    for stage, path in (("profile", "metrics/latency.json"), ("ptq", layout.evaluation("ptq"))):
        assert str(path) in STAGES[stage]["outs"] and str(path) not in str(STAGES[stage]["metrics"])


def test_files_of_models_and_stages_are_outputs_of_their_stage():
    for model, stage in layout.STAGES.items():
        listed = str(STAGES[stage])
        paths = [layout.scores(model), layout.evaluation(model), layout.metrics(stage), layout.details(stage)]
        assert all(f"'{path}'" in listed for path in (*paths, *[layout.model(model)] * (model in layout.MODELS)))
