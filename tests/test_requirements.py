"""The packages: pinned with the hashes of their files, and pip refuses any other file."""

import hashlib
import re
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.workspace import ROOT

KINDS = ("", "-bench", "-dev", "-pip")


def pinned(kind):
    """{name: (version, hashes)}; a line that is neither a comment nor a requirement with its hashes fails."""
    text = (ROOT / f"requirements{kind}.txt").read_text().replace("\\\n", " ")
    found = {}
    for line in filter(None, text.splitlines()):
        if not line.startswith("#"):
            match = re.fullmatch(r"([\w.-]+)==([\w.]+)(?: ; [^\\]*?)?((?: +--hash=sha256:[0-9a-f]{64})+)", line)
            assert match, line
            found[canonicalize_name(match[1])] = match[2], re.findall("[0-9a-f]{64}", match[3])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_all_are_pinned_with_hashes_and_what_is_asked_for_is_there(kind):
    lines = (ROOT / f"requirements{kind}.in").read_text().splitlines()
    asked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = pinned(kind)
    assert asked and all(each.specifier.contains(found[canonicalize_name(each.name)][0]) for each in asked)


def test_the_files_fit_together():
    base = pinned("")
    for kind in ("-bench", "-dev"):
        assert not pinned(kind).keys() & base.keys()
    assert pinned("-pip")["setuptools"] == base["setuptools"]


def wheel(folder, name, version, needs=()):
    """A wheel with nothing in it but its metadata. Gives its SHA-256."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    metadata = "".join(f"Requires-Dist: {each}\n" for each in needs)
    with zipfile.ZipFile(path, "w") as file:
        about = f"{name}-{version}.dist-info"
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", f"{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(folder, constraints, *names):
    """pip as the Makefile calls it, in a folder in place of an environment and an index."""
    makefile = (ROOT / "Makefile").read_text()
    options = re.search(r"^INSTALL = \S+ -m pip install (.*)$", makefile, re.MULTILINE)[1].split()
    assert "--require-hashes" in options and "$(INSTALL) -r requirements.in -c requirements.txt" in makefile
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *options,
        "--isolated",
        "--no-index",
        "--find-links",
        folder,
        "--target",
        folder / "installed",
        "--constraint",
        constraints,
        *names,
    ]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_pip_refuses_another_file_of_a_pinned_version(tmp_path):
    version, _ = pinned("")["tqdm"]
    wheel(tmp_path, "tqdm", version)
    done = install(tmp_path, ROOT / "requirements.txt", "tqdm")
    assert done.returncode and "DO NOT MATCH THE HASHES" in done.stderr


@pytest.mark.slow
def test_pip_takes_what_a_package_needs_with_a_listed_hash_only(tmp_path):
    hashes = {"outer": wheel(tmp_path, "outer", "1.0", ["inner>=1"]), "inner": wheel(tmp_path, "inner", "1.5")}
    constraints = tmp_path / "constraints.txt"

    def listed(**hashes):
        lines = (
            f"{name}=={version} --hash=sha256:{hashes[name]}\n"
            for name, version in (("outer", "1.0"), ("inner", "1.5"))
            if name in hashes
        )
        constraints.write_text("".join(lines))
        return install(tmp_path, constraints, "outer")

    unlisted, changed = listed(outer=hashes["outer"]), listed(**hashes | {"inner": "0" * 64})
    assert unlisted.returncode and "inner" in unlisted.stderr and "--require-hashes mode" in unlisted.stderr
    assert changed.returncode and "DO NOT MATCH THE HASHES" in changed.stderr
    assert not (tmp_path / "installed").exists()
    done = listed(**hashes)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "installed/inner-1.5.dist-info").is_dir()
