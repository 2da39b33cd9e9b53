"""The Makefile, run in small projects: two empty packages from a folder in place of the index."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.workspace import ROOT

REAL_PYTHON = Path(sys.executable).resolve()
TABLE = "| model | EER |\n| --- | --- |\n| fp32 | 5.7 |\n"


def wheel(folder, name, version, metadata="", files=()):
    """A wheel of the files [(name in it, bytes)] and its metadata. Gives its line of requirements.txt."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    contents = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **dict(files),
    }
    with zipfile.ZipFile(path, "w") as file:
        for member, content in contents.items():
            file.writestr(member, content)
        file.writestr(f"{about}/RECORD", "".join(f"{member},,\n" for member in [*contents, f"{about}/RECORD"]))
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def installed_pip():
    """(version, files) of the pip of the tests: the one that Python brings takes no hashes of constraints."""
    pip = distribution("pip")
    files = [file for file in pip.files if file.parts[0].startswith("pip") and file.suffix != ".pyc"]
    return pip.version, [(str(file), file.read_binary()) for file in files if file.name not in ("RECORD", "METADATA")]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A project that needs the package `outer`, which needs `inner`; `wheels` beside it has them and pip."""
    folder = tmp_path_factory.mktemp("source") / "project"
    wheels = folder.parent / "wheels"
    for path in (folder, wheels):
        path.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").write_text('[project]\nname = "small"\ndependencies = ["outer"]\n')
    version, files = installed_pip()
    (folder / "requirements-pip.txt").write_text(wheel(wheels, "pip", version, files=files))
    script = [("outer-1.0.dist-info/entry_points.txt", "[console_scripts]\nouter = outer:main\n")]
    outer = wheel(
        wheels, "outer", "1.0", "Requires-Dist: inner>=1\n", [("outer.py", "def main(): print('ran')"), *script]
    )
    inner = wheel(wheels, "inner", "1.5", files=[("inner.py", "")])
    (folder / "requirements.txt").write_text(outer + inner)
    return folder


def placed(source, folder):
    """A copy of it in a folder, with the packages beside it."""
    shutil.copytree(source.parent / "wheels", folder / "wheels")
    return Path(shutil.copytree(source, folder / "small project", symlinks=True))


@pytest.fixture
def project(source, tmp_path):
    return placed(source, tmp_path)


@pytest.fixture(scope="module")
def installed(source, tmp_path_factory):
    """A project whose environment was made beside unfit settings of pip."""
    project = placed(source, tmp_path_factory.mktemp("installed"))
    settings = f"[global]\nfind-links = {project.parent}/wheels\nno-index = true\n"
    unfit = "user = true\nprefix = {0}/elsewhere\nroot = {0}/elsewhere\n"
    (project / "pip.conf").write_text(settings + "[install]\n" + unfit.format(project))
    environment = {f"PIP_{name}": f"{project}/elsewhere" for name in ("TARGET", "PREFIX", "ROOT", "CONSTRAINT")}
    make(
        project,
        ".venv/installed",
        PIP_CONFIG_FILE=str(project / "pip.conf"),
        PIP_NO_INDEX=None,
        PIP_FIND_LINKS=None,
        PIP_USER="1",
        PIP_NO_DEPS="1",
        PIP_DRY_RUN="1",
        PYTHONPATH=str(project / "elsewhere"),
        **environment,
    )
    return project


def make(folder, *arguments, status=0, python=REAL_PYTHON, **env):
    """What make prints; the packages come from the folder `wheels`, and from no user's settings of this machine."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))}
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder.parent / "wheels")}
    done = subprocess.run(
        ["make", *arguments, *([f"PYTHON={python}"] if python else [])],
        cwd=folder,
        env={name: value for name, value in (clean | offline | env).items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def runs(folder):
    """Whether the environment has the packages and their scripts run."""
    return subprocess.run([folder / ".venv/bin/outer"], capture_output=True, text=True).stdout == "ran\n"


def linked_environment(folder):
    """`.venv` made of links to that of the tests."""
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith("installed"):
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv/installed").touch()


def pipeline(folder):
    """A pipeline of one stage, and `.venv`."""
    linked_environment(folder)
    for name in (".dvc", "metrics"):
        (folder / name).mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (folder / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (folder / "dvc.yaml").write_text("stages:\n  hello:\n    cmd: echo result > out; echo 5.7 %\n    outs: [out]\n")
    (folder / "metrics/report.md").write_text(f"# Report\n\n{TABLE}\nMore.\n\n| other |\n")
    return folder


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_users_settings_of_pip_do_not_reach_it_but_where_packages_come_from_does(installed):
    assert runs(installed) and not (installed / "elsewhere").exists()
    assert list(installed.glob(".venv/lib/python*/site-packages/inner.py"))


def test_an_environment_that_was_moved_copied_or_lost_its_python_is_made_anew(installed, tmp_path):
    assert "up to date" in make(installed, ".venv/installed") and runs(installed)
    copied = placed(installed, tmp_path)
    (copied / ".venv/extra").touch()
    make(copied, ".venv/installed")
    assert runs(copied) and not (copied / ".venv/extra").exists()
    assert "up to date" in make(copied, "--dry-run", ".venv/installed")
    for link in copied.glob(".venv/bin/python*"):
        link.rename(link.with_name(f"was-{link.name}"))
        link.symlink_to("/gone/python")
    assert "venv --clear .venv" in make(copied, "--dry-run", ".venv/installed")
    for link in copied.glob(".venv/bin/was-*"):
        link.rename(link.with_name(link.name.removeprefix("was-")))
    assert "up to date" in make(copied, "--dry-run", ".venv/installed")
    moved = copied.rename(tmp_path / "moved")
    assert "venv --clear .venv" in make(moved, "--dry-run", ".venv/installed")


def programs(folder, **scripts):
    """A PATH of bash and what make's recipes call, and of these scripts."""
    folder.mkdir()
    for name in ("bash", "env", "make", "awk", "grep", "id", "touch", "test", "sh"):
        (folder / name).symlink_to(shutil.which(name))
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


OLD = "exit 1"  # what Python 3.9 does when asked whether it fits


@pytest.mark.parametrize(
    ("python", "scripts"), [(None, {"python3.12": "exit 127"}), ("python3.9", {"python3.9": OLD, "python3": "exit 0"})]
)
def test_without_a_python_that_fits_one_line_says_which_are_accepted(project, tmp_path, python, scripts):
    path = programs(tmp_path / "bin", **scripts)
    first, *rest = make(project, ".venv/installed", status=2, python=python, PATH=path).splitlines()
    assert first.startswith("Python 3.11, 3.12 or 3.13 ") and first.endswith(python or "python")
    assert all(line.startswith("make: ***") for line in rest) and not (project / ".venv").exists()


def test_a_newer_python_that_does_not_run_is_passed_over_and_what_lies_in_a_venv_of_the_users_own_is_kept(
    project, tmp_path
):
    (project / ".venv").mkdir()
    (project / ".venv/notes").write_text("mine")
    path = programs(tmp_path / "bin", **{"python3.13": "exit 127", "python3.11": f'exec "{REAL_PYTHON}" "$@"'})
    make(project, ".venv/installed", status=2, python=None, PATH=path, PIP_FIND_LINKS="nowhere")
    made = subprocess.run(
        [project / ".venv/bin/python", "-c", "import pip, sys; print(sys.prefix)"], capture_output=True
    )
    assert made.stdout.decode().strip() == str(project / ".venv")
    assert (project / ".venv/notes").read_text() == "mine"


def test_a_run_prints_a_line_or_two_a_stage_then_the_table_and_where_to_look(project):
    pipeline(project)
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    expected = f"Running stage 'hello':\n5.7 %\n\n{TABLE}\nPlots, intervals and all figures: metrics/report.html\n"
    assert make(project, "repro") == expected
    assert make(project, "repro").startswith("Stage 'hello' didn't change, skipping\n")
    (project / "dvc.yaml").write_text("stages:\n  hello:\n    cmd: echo it is wrong >&2; exit 3\n")
    printed = make(project, "repro", status=2)
    assert "it is wrong" in printed and "failed to reproduce 'hello'" in printed and TABLE not in printed


def test_a_copy_without_git_runs_and_is_not_changed_for_git(project):
    pipeline(project)
    assert TABLE in make(project, "repro", GIT_CEILING_DIRECTORIES=str(project.parent))
    git(project, "init", "--quiet")
    assert TABLE in make(project, "repro")
    assert ".dvc/config.local" not in git(project, "status", "--porcelain", "--untracked-files=all")
    assert "no_scm" not in (project / ".dvc/config.local").read_text()


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become a user without a name"
)
def test_a_user_without_a_name_or_home_can_run_it(project):
    pipeline(project)
    git(project, "init", "--quiet")
    for path in (project, *project.rglob("*")):
        os.chown(path, 4242, 4242, follow_symlinks=False)
    reading = "+dac_override,+dac_read_search"  # where the tests' Python is root's own
    command = ["setpriv", "--reuid=4242", "--clear-groups", f"--inh-caps={reading}", f"--ambient-caps={reading}"]
    env = {name: value for name, value in os.environ.items() if name not in ("LOGNAME", "USER", "USERNAME", "HOME")}
    done = subprocess.run([*command, "make", "repro"], cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and TABLE in done.stdout, done.stdout + done.stderr


def test_help_lists_every_target():
    printed = make(ROOT, "help")
    for target in ("repro", "test", "lint", "bench", "demo", "lock", "clean", "help"):
        assert f"make {target} " in printed
