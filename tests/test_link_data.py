"""Stage `link_data` under DVC: what changes in the user's own folder is seen, and nothing in it is ever touched."""

import shutil
import subprocess

import pytest
import yaml

from tests.workspace import ROOT, call, change_parameters, interpreter_first, run

WATCHER = "print(sorted(path.name for path in __import__('pathlib').Path('data/linked').rglob('*.wav')))"


@pytest.fixture
def project(tmp_path):
    """(a project under DVC with the stage and one that lists the recordings, a folder of recordings outside it)"""
    folder, outside = tmp_path / "project", tmp_path / "outside"
    (outside / "speaker").mkdir(parents=True)
    (outside / "speaker/a.wav").write_text("a")
    (tmp_path / "trials.txt").write_text("1 speaker/a.wav speaker/a.wav\n")
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    (folder / "watch.py").write_text(WATCHER)
    watch = {"cmd": "python watch.py > listed", "deps": ["data/linked", "data/linked_trials"], "outs": ["listed"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"link_data": stages["link_data"], "watch": watch}}))
    call(folder, "dvc", "init", "--no-scm", "--quiet")
    return folder, outside


def test_what_changes_in_the_users_files_is_seen_and_they_are_left_alone(project):
    folder, outside = project
    trials = outside.parent / "trials.txt"
    change_parameters(folder, {"data": {"source": "folder", "path": str(outside), "trials": str(trials)}})
    listed = lambda: (folder / "listed").read_text().strip()  # noqa: E731
    call(folder, "dvc", "repro")
    assert listed() == "['a.wav']" and "up to date" in call(folder, "dvc", "status")
    for change, watched, expected in (
        (lambda: (outside / "speaker/a.wav").rename(outside / "speaker/b.wav"), "linked", "['b.wav']"),
        (lambda: trials.write_text("0 speaker/a.wav other/a.wav\n"), "linked_trials", "['b.wav']"),
    ):
        change()
        before = {path: path.read_bytes() for path in outside.rglob("*.wav")}
        assert f"data/{watched}\n" in call(folder, "dvc", "status")
        call(folder, "dvc", "repro")
        assert listed() == expected
        assert {path: path.read_bytes() for path in outside.rglob("*.wav")} == before
    change_parameters(folder, {"data": {"source": "synthetic", "path": None, "trials": None}})
    call(folder, "dvc", "repro")
    assert listed() == "[]" and [path.name for path in outside.rglob("*.wav")] == ["b.wav"]


def test_a_folder_that_dvc_has_in_its_cache_is_still_watched(project):
    folder, _ = project
    own = folder / "recordings"
    own.mkdir()
    (own / "a.wav").write_text("a")
    call(folder, "dvc", "add", "--quiet", "recordings")
    change_parameters(folder, {"data": {"source": "folder", "path": "recordings"}})
    call(folder, "dvc", "repro")
    (own / "b.wav").write_text("b")
    call(folder, "dvc", "repro", "dvc.yaml")
    assert (folder / "listed").read_text().strip() == "['a.wav', 'b.wav']" and len(list(own.iterdir())) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "nowhere"}, "data.path: nowhere: no such folder"),
        ({"path": "data", "trials": "nowhere.txt"}, "data.trials: nowhere.txt: no such file"),
        ({"path": "data/linked"}, "data.path: data/linked is where the link is made"),
        ({"path": "."}, "data/linked: not made by this stage; move it away"),
    ],
)
def test_what_cannot_be_linked_is_said_and_nothing_is_replaced(tmp_path, data, message):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change_parameters(tmp_path, {"data": {"source": "folder", **data}})
    (tmp_path / "data/linked").mkdir(parents=True)
    (tmp_path / "data/linked/mine.wav").write_text("a")
    output = run(tmp_path, "link_data")
    assert output.returncode == 1 and message in output.stderr and len(output.stderr.splitlines()) == 1
    assert (tmp_path / "data/linked/mine.wav").read_text() == "a"


def test_an_experiment_in_a_copy_needs_an_absolute_path(project):
    folder, outside = project
    shutil.rmtree(folder / ".dvc")
    call(folder, "git", "init", "--quiet")
    call(folder, "dvc", "init", "--quiet")
    (folder / ".gitignore").write_text("/data\n/listed\n__pycache__\n")
    call(folder, "git", "add", "--all")
    call(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "a")
    command = ["dvc", "exp", "run", "--temp", "-S", "data.source=folder", "-S"]
    call(folder, *command, f"data.path={outside}", GIT_AUTHOR_NAME="a", GIT_COMMITTER_NAME="a")
    output = subprocess.run(
        [*command, "data.path=../outside"], cwd=folder, capture_output=True, text=True, env=interpreter_first()
    )
    assert output.returncode and "data.path: ../outside: no such folder" in output.stdout + output.stderr
