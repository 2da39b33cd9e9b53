import os

import pytest

from src.common import files
from src.runtime.errors import InputError
from tests.workspace import python, small_files


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_text(path, "x" * 5_000),
        lambda path: files.write_json(path, list(range(5_000))),
        lambda path: files.write_csv(path, ("a",), [[1]] * 5_000),
    ],
)
def test_what_cannot_be_written_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "folder/file"
    with small_files(4_096), pytest.raises(InputError, match=f"{path}: cannot be written: File too large"):
        write(path)
    assert list(path.parent.iterdir()) == []
    files.write_text(path, "before")
    with small_files(4_096), pytest.raises(InputError):
        write(path)
    assert list(path.parent.iterdir()) == [path] and path.read_text() == "before"


def test_rows_that_cannot_be_made_leave_nothing(tmp_path):
    with pytest.raises(KeyError):
        files.write_csv(tmp_path / "file", ("a",), [{"a": 1}, {"b": 2}])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_one_of_the_same_files(tmp_path):
    def write(*names):
        with files.atomic_write(tmp_path / "folder") as new:
            for name in names:
                files.write_text(new / name, f"{len(names)}")
            if (tmp_path / "folder").exists():
                assert (tmp_path / "folder/a/b").read_text() == "1"

    write("a/b")
    write("a/b", "c")
    assert (tmp_path / "folder/a/b").read_text() == "2" and os.listdir(tmp_path) == ["folder"]
    (tmp_path / "folder/a/notes.txt").write_text("mine")
    message = "folder: cannot be replaced: a/notes.txt in it is not of this program"
    with pytest.raises(InputError, match=message), files.atomic_write(tmp_path / "folder") as new:
        files.write_text(new / "a/b", "")
    with pytest.raises(KeyboardInterrupt), files.atomic_write(tmp_path / "folder") as new:
        raise KeyboardInterrupt
    assert (tmp_path / "folder/a/notes.txt").read_text() == "mine" and (tmp_path / "folder/a/b").read_text() == "2"
    assert os.listdir(tmp_path) == ["folder"]


def test_a_replacement_that_fails_puts_the_folder_back(tmp_path, monkeypatch):
    files.write_text(tmp_path / "folder/a", "before")
    plain = os.replace

    def replace(source, target):
        if str(source).endswith("new") and os.path.isdir(source):
            raise OSError(28, "No space left on device")
        plain(source, target)

    with pytest.raises(InputError, match="No space left"), files.atomic_write(tmp_path / "folder") as new:
        files.write_text(new / "a", "after")
        monkeypatch.setattr(os, "replace", replace)
    assert (tmp_path / "folder/a").read_text() == "before"


KILLED = """
import os, signal
from src.common import files
with files.atomic_write("out") as new:
    new.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_goes_and_nothing_else_does(tmp_path):
    for name in (".out.partial", ".out.before", ".abcdefgh.partial/file", ".12345678.partial/made-by"):
        files.write_text(tmp_path / name, "of a user")
    users = sorted(os.listdir(tmp_path))
    python(tmp_path, "-c", KILLED)
    (left,) = set(os.listdir(tmp_path)) - set(users)
    assert not (tmp_path / "out").exists()
    with files.temporary_folder(tmp_path) as other:  # another run's, which goes on
        assert not (tmp_path / left).exists()
        files.write_text(tmp_path / "out", "whole")
        assert other.is_dir()
    assert sorted(os.listdir(tmp_path)) == sorted([*users, "out"])


def test_a_file_where_a_folder_is_needed_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/inside: cannot be written: (Not a directory|File exists)"):
        files.write_text(tmp_path / "file/inside", "")
