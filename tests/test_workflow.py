"""The workflow of GitHub Actions: the commands that it runs are the project's."""
import re

import yaml

from tests.workspace import ROOT

TEXT = (ROOT / ".github/workflows/ci.yml").read_text()
JOBS = yaml.safe_load(TEXT)["jobs"]


def commands(job):
    return "\n".join(step.get("run", "") for step in JOBS[job]["steps"])


def test_it_tests_and_runs_the_pipeline_and_compares():
    assert "make test" in commands("test")
    order = [commands("pipeline").index(part) for part in (
        "make .venv/installed", "dvc repro --pull", "dvc metrics diff", "dvc plots diff", "cml comment")]
    assert order == sorted(order)


def test_every_file_and_target_that_it_names_exists():
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"make ([\w./-]+)", TEXT):
        assert target in targets
    for path in re.findall(r"-r ([\w.-]+)", TEXT):
        assert (ROOT / path).is_file()
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    drawn = {path for stage in plots for entry in stage.get("plots", ()) for path in entry}
    (shown,) = re.findall(r"for plot in ([\w ]+); do", TEXT)
    assert {f"metrics/{name}.csv" for name in shown.split()} <= drawn


def test_only_the_job_that_comments_may_write_and_it_is_not_given_to_forks():
    assert yaml.safe_load(TEXT)["permissions"] == {"contents": "read"}
    assert [name for name, job in JOBS.items() if "write" in str(job.get("permissions"))] == ["pipeline"]
    (comment,) = [step for step in JOBS["pipeline"]["steps"] if step.get("name") == "Comment"]
    assert "head.repo.full_name == github.repository" in comment["if"]
    assert "pull_request_target" not in TEXT
