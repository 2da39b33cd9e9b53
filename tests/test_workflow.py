"""The workflow of GitHub Actions: what its script does with two commits."""

import json
import re

import pytest
import yaml

from tests.workspace import ROOT, call, change_parameters, commit, small_clone

JOBS = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]


@pytest.mark.slow
def test_the_comment_compares_what_a_pull_request_changes(tmp_path):
    """The script of the step as bash runs it there, on two commits of which one has another EER and another value."""
    pytest.importorskip("vl_convert", reason="vl-convert-python is not installed: pip install -r requirements-dev.txt")
    folder = small_clone(tmp_path / "clone")
    base = call(folder, "git", "rev-parse", "HEAD").strip()
    found = json.loads((folder / "metrics/ptq.json").read_text())
    (folder / "metrics/ptq.json").write_text(json.dumps({**found, "eer": found["eer"] + 0.125}))
    change_parameters(folder, {"ptq": {"observer": "histogram"}})
    commit(folder, "Change")
    (compare,) = [step["run"] for step in JOBS["pipeline"]["steps"] if step.get("name") == "Compare"]
    call(
        folder, "bash", "-e", "-o", "pipefail", "-c", compare, BASE=base, GITHUB_STEP_SUMMARY=str(tmp_path / "summary")
    )
    comment = (folder / "comment.md").read_text()
    assert (tmp_path / "summary").read_text() == comment and base[:7] in comment and base not in comment
    assert re.search(r"\| metrics/ptq.json \| eer +\|.*\| 0.125 +\|", comment)
    assert re.search(r"\| params.yaml \| ptq.observer \| minmax +\| histogram +\|", comment)
    for name in re.findall(r"!\[\w+\]\(./(\w+.png)\)", comment):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert (folder / name).stat().st_size > 10_000
    assert comment.count(".png)") == 3
