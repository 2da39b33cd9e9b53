import pytest

from src.data.trial_list import read_trial_list
from src.runtime.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for name in ("a/1.wav", "a/2.wav", "b/x/1.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def written(folder, text):
    (folder / "trials.txt").write_text(text)
    return folder / "trials.txt"


def test_trials_in_file_order_with_normalised_names(folder):
    path = written(folder, "1 a/1.wav ./a/2.wav\n\n0\ta//1.wav  b/x/1.wav\r\n")
    expected = [(1, "a/1.wav", "a/2.wav"), (0, "a/1.wav", "b/x/1.wav")]
    assert read_trial_list(path) == expected
    assert read_trial_list(path, folder) == expected


KALDI = "a/1.wav a/2.wav target\na/1.wav b/x/1.wav nontarget\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf1 a/1.wav a/2.wav\r\n0 a/1.wav b/x/1.wav\r\n",
        "1\ta/1.wav\ta/2.wav\n0\ta/1.wav\tb/x/1.wav".encode("utf-16"),
        KALDI.encode(),
        KALDI.replace("\n", "\r\n").encode("utf-8-sig"),
    ],
)
def test_lists_as_other_programs_write_them(folder, data):
    (folder / "trials.txt").write_bytes(data)
    assert read_trial_list(folder / "trials.txt", folder) == [(1, "a/1.wav", "a/2.wav"), (0, "a/1.wav", "b/x/1.wav")]


def test_names_are_compared_in_one_form_and_may_have_spaces_between_tabs(folder):
    for name in ("Zoe\u0308/my voice.wav", "Zoe\u0308/2.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    path = written(folder, "1\tZo\u00eb/my voice.wav\tZo\u00eb/2.wav\n0\tZoe\u0308/my voice.wav\ta/1.wav\n")
    assert read_trial_list(path, folder) == [
        (1, "Zo\u00eb/my voice.wav", "Zo\u00eb/2.wav"),
        (0, "Zo\u00eb/my voice.wav", "a/1.wav"),
    ]


def test_a_speaker_may_be_a_level_below(folder):
    path = written(folder, "1 b/x/1.wav b/x/1.wav\n0 b/x/1.wav b/x/1.wav\n")
    assert len(read_trial_list(path, folder, level=2)) == 2
    with pytest.raises(InputError, match="line 1: a/1.wav has no speaker: it must be <folder>/<speaker>/"):
        read_trial_list(written(folder, "1 a/1.wav b/x/1.wav\n"), folder, level=2)


@pytest.mark.parametrize(
    "line, message",
    [
        ("1 a/1.wav", "line 3: not `0 or 1, a file, a file`"),
        ("2 a/1.wav a/2.wav", "line 3: not `0 or 1, a file, a file`"),
        ("1 a/1.wav a/2.wav b/x/1.wav", "line 3: not `0 or 1, a file, a file`"),
        ("1 a/1.wav target", "line 3: both `0 or 1, a file, a file` or"),
        ("a/1.wav a/2.wav same", "line 3: not `0 or 1, a file, a file` or"),
        ("1 a/1.wav a/9.wav", "line 3: a/9.wav: no such file"),
        ("1 a/1.wav a", "line 3: a has no speaker"),
        ("1 a/1.wav ../b/1.wav", "line 3: ../b/1.wav leads out of the data folder"),
        ("1 a/1.wav a/../../b/1.wav", "leads out of the data folder"),
        ("1 /etc/passwd a/1.wav", "line 3: /etc/passwd leads out of the data folder"),
    ],
)
def test_a_bad_line_is_named(folder, line, message):
    path = written(folder, f"1 a/1.wav a/2.wav\n0 a/1.wav b/x/1.wav\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_trial_list(path, folder)


@pytest.mark.parametrize("text", ["", "1 a/1.wav a/2.wav\n", "0 a/1.wav b/x/1.wav\n"])
def test_both_kinds_of_trials_are_needed(folder, text):
    with pytest.raises(InputError, match="are both needed"):
        read_trial_list(written(folder, text))


def test_a_missing_list_is_an_error(folder):
    with pytest.raises(InputError, match="no such file"):
        read_trial_list(folder / "none.txt")


@pytest.mark.parametrize(("name", "count"), [("veri_test.txt", 37_720), ("veri_test2.txt", 37_611)])
def test_an_official_list_must_be_whole(tmp_path, name, count):
    lines = ["1 a/1.wav a/2.wav", "0 a/1.wav b/1.wav"] * (count // 2 + 1)
    path = tmp_path / name
    path.write_text("\n".join(lines[:count]))
    assert len(read_trial_list(path)) == count
    path.write_text("\n".join(lines[: count - 1]))
    with pytest.raises(InputError, match=f"{count - 1:,} trials; VoxCeleb1's list of this name has {count:,}"):
        read_trial_list(path)
