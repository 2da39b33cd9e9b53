import os

import pytest

from src.common import files
from src.common.command import reported
from src.runtime.errors import InputError
from tests.workspace import small_files


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


def test_a_folder_takes_the_place_of_another_and_what_a_killed_run_left_goes(tmp_path):
    for name in ("folder", ".folder.partial", ".folder.before"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text(name)
    with files.atomic_write(tmp_path / "folder") as beside:
        files.write_text(beside / "new", "new")
        assert os.listdir(tmp_path / "folder") == ["old"]
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(tmp_path / "folder") == ["new"]
    with pytest.raises(KeyboardInterrupt), files.atomic_write(tmp_path / "folder") as beside:
        files.write_text(beside / "newer", "")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(tmp_path / "folder") == ["new"]


def test_a_file_where_a_folder_is_needed_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/inside: cannot be written: (Not a directory|File exists)"):
        files.write_text(tmp_path / "file/inside", "")


@pytest.mark.parametrize(
    "error, said",
    [
        (InputError("what is wrong"), "error: what is wrong\n"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), "error: a.csv: No such file or directory\n"),
        (OSError(28, "No space left on device"), "error: No space left on device\n"),
        (ConnectionError(), "error: ConnectionError\n"),
    ],
)
def test_a_fault_ends_a_program_with_one_line(error, said, capsys):
    with pytest.raises(SystemExit) as ended, reported(2):
        raise error
    assert ended.value.code == 2 and capsys.readouterr().err == said
