"""The packages: all that pyproject.toml asks for is pinned, with the hashes of its files (what pip does with these:
tests/test_makefile.py)."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.workspace import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIRED = {"": PROJECT["project"]["dependencies"]} | {
    f"-{name}": [line for line in lines if isinstance(line, str)]  # others name a group that is in it
    for name, lines in PROJECT["dependency-groups"].items()
}


def pinned(group):
    """{name: version}; a line that is neither a comment nor a requirement with its hashes fails."""
    text = (ROOT / f"requirements{group}.txt").read_text().replace("\\\n", " ")
    versions = {}
    for line in filter(None, text.splitlines()):
        if not line.startswith("#"):
            match = re.fullmatch(r"([\w.-]+)==([\w.]+)(?: ; [^\\]*?)?(?: +--hash=sha256:[0-9a-f]{64})+", line)
            assert match, line
            versions[canonicalize_name(match[1])] = match[2]
    return versions


@pytest.mark.parametrize("group", REQUIRED)
def test_all_are_pinned_with_hashes_and_what_is_asked_for_is_there(group):
    versions = pinned(group)
    main = pinned("")
    assert all(main.get(name, version) == version for name, version in versions.items())
    for requirement in map(Requirement, REQUIRED[group]):
        assert requirement.specifier.contains((versions | main)[canonicalize_name(requirement.name)]), requirement
