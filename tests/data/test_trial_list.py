import resource
import time

import pytest

from src.data.trial_list import OFFICIAL, left_out, read_trial_list
from src.runtime.errors import InputError

RECORDINGS = ("a/1.wav", "a/2.wav", "b/x/1.wav")


def written(folder, text):
    (folder / "trials.txt").write_text(text)
    return folder / "trials.txt"


def test_trials_in_file_order_with_normalised_names(tmp_path):
    path = written(tmp_path, "1 a/1.wav ./a/2.wav\n\n0\ta//1.wav  b/x/1.wav\r\n")
    expected = [(1, "a/1.wav", "a/2.wav"), (0, "a/1.wav", "b/x/1.wav")]
    assert read_trial_list(path) == expected
    assert read_trial_list(path, RECORDINGS) == expected


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
def test_lists_as_other_programs_write_them(tmp_path, data):
    (tmp_path / "trials.txt").write_bytes(data)
    assert read_trial_list(tmp_path / "trials.txt", RECORDINGS) == [
        (1, "a/1.wav", "a/2.wav"),
        (0, "a/1.wav", "b/x/1.wav"),
    ]


def test_names_are_compared_in_one_form_and_may_have_spaces_between_tabs(tmp_path):
    recordings = ("Zo\u00eb/my voice.wav", "Zo\u00eb/2.wav", "a/1.wav")
    path = written(tmp_path, "1\tZo\u00eb/my voice.wav\tZo\u00eb/2.wav\n0\tZoe\u0308/my voice.wav\ta/1.wav\n")
    assert read_trial_list(path, recordings) == [
        (1, "Zo\u00eb/my voice.wav", "Zo\u00eb/2.wav"),
        (0, "Zo\u00eb/my voice.wav", "a/1.wav"),
    ]


VOXCELEB = [f"id10270/{video}/{file}.wav" for video in ("x6uYqmx31kE", "5r0-dWxy_C8") for file in ("00001", "00002")]
OTHER = "id10300/ize_eiCFEg0/00003.wav"


@pytest.mark.parametrize(
    "text",
    [
        "id10270-x6uYqmx31kE-00001 id10270-5r0-dWxy_C8-00002 target\nid10270-x6uYqmx31kE-00001 id10300-ize_eiCFEg0-00003 nontarget\n",
        "1 id10270/x6uYqmx31kE/00001 id10270/5r0-dWxy_C8/00002\n0 id10270/x6uYqmx31kE/00001 id10300/ize_eiCFEg0/00003",
        "1\tid10270/x6uYqmx31kE/00001.wav\tid10270-5r0-dWxy_C8-00002.wav\r\n\r\n"
        "0 \t id10270/x6uYqmx31kE/00001.WAV  id10300/ize_eiCFEg0/00003.flac\r\n",
    ],
)
@pytest.mark.parametrize("above", ["", "test/wav/"])
def test_ids_and_paths_with_or_without_an_ending_lead_to_recordings(tmp_path, text, above):
    recordings = [above + name for name in (*VOXCELEB, OTHER)]
    level = 1 + above.count("/")
    first, _, _, fourth, other = recordings
    expected = [(1, first, fourth), (0, first, other)]
    assert read_trial_list(written(tmp_path, text), recordings, level) == expected


def test_a_name_that_is_there_as_it_stands_is_that_recording(tmp_path):
    recordings = ("a/1.wav", "a/1.flac", "a/1", "b/v.2.wav", "b/v.wav")
    path = written(tmp_path, "1 a/1.flac a/1\n0 a/1.wav b/v.2\n")
    assert read_trial_list(path, recordings) == [(1, "a/1.flac", "a/1"), (0, "a/1.wav", "b/v.2.wav")]


@pytest.mark.parametrize(
    "recordings, name, message",
    [
        (["a/1.wav", "a/1.flac"], "a/1", "line 3: a/1 may be a/1.flac or a/1.wav"),
        (["a/1.mp3", "a/1.flac"], "a/1.wav", "line 3: a/1.wav may be a/1.flac or a/1.mp3"),
        (["a/1-2.wav", "a-1/2.wav"], "a-1-2", "line 3: a-1-2 may be a-1/2.wav or a/1-2.wav"),
    ],
)
def test_a_name_that_may_be_two_recordings_is_refused(tmp_path, recordings, name, message):
    path = written(tmp_path, f"1 b/1.wav b/1.wav\n0 b/1.wav c/1.wav\n1 {name} {name}\n")
    with pytest.raises(InputError, match=message):
        read_trial_list(path, recordings)


def test_two_folders_with_one_speaker_are_told_apart_by_the_whole_path(tmp_path):
    recordings = ("dev/s/1.wav", "test/s/1.wav")
    assert read_trial_list(written(tmp_path, "1 dev/s/1 dev/s/1\n0 dev/s/1 test/s/1"), recordings, 2)
    with pytest.raises(InputError, match="line 1: s/1 may be dev/s/1.wav or test/s/1.wav"):
        read_trial_list(written(tmp_path, "1 s/1 s/1\n0 s/1 s/1"), recordings, 2)


def test_trials_with_missing_recordings_are_counted_and_too_many_are_refused(tmp_path):
    lines = ["1 a/1.wav a/2.wav", "0 a/1.wav b/x/1.wav"] * 50
    trials = read_trial_list(written(tmp_path, "\n".join([*lines[:99], "0 speaker-a a/1.wav"])), RECORDINGS)
    assert trials[-1] == (0, "speaker-a", "a/1.wav")
    assert left_out(trials, RECORDINGS, "list.txt", 0.01) == 1
    assert left_out(trials[:-1], RECORDINGS, "list.txt", 0) == 0
    with pytest.raises(
        InputError, match=r"^list.txt: 1 of 100 trials .* such as speaker-a; evaluate.max_missing_trials allows 0.9 %$"
    ):
        left_out(trials, RECORDINGS, "list.txt", 0.009)


@pytest.mark.parametrize(
    "line, message",
    [
        ("1 a/1.wav", "line 3: not `0 or 1, a file, a file`"),
        ("2 a/1.wav a/2.wav", "line 3: not `0 or 1, a file, a file`"),
        ("1 a/1.wav a/2.wav b/x/1.wav", "line 3: not `0 or 1, a file, a file`"),
        ("1 a/1.wav target", "line 3: both `0 or 1, a file, a file` or"),
        ("a/1.wav a/2.wav same", "line 3: not `0 or 1, a file, a file` or"),
        ("1 a/1.wav ../b/1.wav", "line 3: ../b/1.wav leads out of the data folder"),
        ("1 a/1.wav a/../../b/1.wav", "leads out of the data folder"),
        ("1 /etc/passwd a/1.wav", "line 3: /etc/passwd leads out of the data folder"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = written(tmp_path, f"1 a/1.wav a/2.wav\n0 a/1.wav b/x/1.wav\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_trial_list(path, RECORDINGS)


@pytest.mark.parametrize("text", ["", "1 a/1.wav a/2.wav\n", "0 a/1.wav b/x/1.wav\n"])
def test_both_kinds_of_trials_are_needed(tmp_path, text):
    with pytest.raises(InputError, match="are both needed"):
        read_trial_list(written(tmp_path, text))


def test_a_missing_list_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_trial_list(tmp_path / "none.txt")


@pytest.mark.parametrize(("name", "count"), OFFICIAL.items())
def test_an_official_list_must_be_whole(tmp_path, name, count):
    path = tmp_path / name
    path.write_text("1 a/1.wav a/2.wav\n0 a/1.wav b/x/1.wav")
    with pytest.raises(InputError, match=f"2 trials; VoxCeleb1's list of this name has {count:,}"):
        read_trial_list(path)


def test_the_largest_official_list_is_read_in_seconds(tmp_path):
    """Measured: 4 s and 40 MB of VoxCeleb1-E, 7 s where the names are ids, beside six busy processes on two cores."""
    name, count = max(OFFICIAL.items(), key=lambda item: item[1])
    names = [
        f"id{10_000 + speaker}/video_{video:04}x/{file:05}.wav"
        for speaker in range(50)
        for video in range(20)
        for file in range(10)
    ]
    lines = [f"{number % 2} {names[number % 9_973]} {names[number % 9_967]}" for number in range(count)]
    path = tmp_path / name
    path.write_text("\n".join(lines))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert len(read_trial_list(path, names)) == count
    assert time.process_time() - start < 20 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
