import subprocess

import pytest

from src.common.git import code_version


def git(*arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with code, in the working directory. Gives its commit."""
    monkeypatch.chdir(tmp_path)
    git("init")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("1")
    git("add", "src")
    git("commit", "-m", "code")
    return git("rev-parse", "HEAD")


def test_the_version_is_the_last_commit_that_changed_the_code(repository, tmp_path, capfd):
    (tmp_path / "words.md").write_text("1")
    git("add", "words.md")
    git("commit", "-m", "words")
    assert code_version() == {"id": repository, "modified": False}
    (tmp_path / "src/a.py").write_text("2")
    assert code_version() == {"id": repository, "modified": True}
    assert capfd.readouterr() == ("", "")


def test_a_refusal_of_git_is_the_version_and_is_printed_in_one_line(repository, monkeypatch, capfd):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    version = code_version()
    assert version.startswith("unknown: git refused: detected dubious ownership in repository at")
    assert capfd.readouterr().err == f"commit {version}\n"


def test_without_a_repository_or_git_the_version_is_unknown(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert code_version() == "unknown: not a Git repository"
    git("init")
    assert "does not have any commits yet" in code_version()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version() == "unknown: git cannot be run: No such file or directory"
