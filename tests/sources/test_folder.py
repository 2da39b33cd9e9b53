import os
import tempfile
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from src.runtime.errors import AudioError, InputError
from src.sources import folder


def write(path, samples=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).uniform(-0.3, 0.3, samples), 16_000)
    return path


def reasons(candidates):
    """{utt_id: reason, or the number of samples}"""
    outcome = {}
    for candidate in candidates:
        try:
            outcome[candidate.utt_id] = len(candidate.read()[0])
        except AudioError as error:
            outcome[candidate.utt_id] = str(error)
    return outcome


def test_files_of_speakers_in_order_whatever_their_suffix_and_name(tmp_path):
    for name in ("b/2.WAV", "b/10/1.flac", "a/x/y/ö ü.ogg", "a/x/z,1.mp3"):
        write(tmp_path / name)
    write(tmp_path / "no speaker.wav")
    (tmp_path / "a" / "notes.txt").write_text("x")  # no recording
    found = folder.candidates(tmp_path, 8)
    assert [(c.speaker, c.utt_id) for c in found] == [
        ("a", "a/x/y/ö ü.ogg"),
        ("a", "a/x/z,1.mp3"),
        ("b", "b/10/1.flac"),
        ("b", "b/2.WAV"),
    ]
    assert set(reasons(found).values()) == {16_000}


def test_no_more_is_decoded_than_needed(tmp_path):
    write(tmp_path / "a" / "1.wav", 20 * 16_000)
    assert 2 * 16_000 <= reasons(folder.candidates(tmp_path, 2))["a/1.wav"] < 3 * 16_000
    assert reasons(folder.named(tmp_path, ["a/1.wav"])) == {"a/1.wav": 20 * 16_000}


def test_links_are_followed_once_and_faults_are_reasons(tmp_path):
    write(tmp_path / "s" / "real" / "1.wav")
    (tmp_path / "s" / "dangling.wav").symlink_to("nowhere.wav")
    (tmp_path / "s" / "itself.wav").symlink_to("itself.wav")
    (tmp_path / "s" / "again").symlink_to("real")
    (tmp_path / "s" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "s" / "pipe.wav")
    (tmp_path / "elsewhere").symlink_to("s/real")
    assert reasons(folder.candidates(tmp_path, 8)) == {
        "s/real/1.wav": 16_000,
        "s/dangling.wav": "dangling link",
        "s/itself.wav": "unreadable: Too many levels of symbolic links",
        "s/again": "link to a folder already read",
        "s/up": "link to a folder already read",
        "s/pipe.wav": "not a regular file",
        "elsewhere/1.wav": 16_000,
    }


def test_a_name_that_is_not_utf_8_is_escaped(tmp_path):
    plain = write(tmp_path / "s" / "1.wav")
    try:
        os.rename(plain, os.fsencode(tmp_path) + b"/s/\xff.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert reasons(folder.candidates(tmp_path, 8)) == {"s/\\xff.wav": 16_000}


def test_no_permission_is_a_reason(tmp_path):
    write(tmp_path / "s" / "1.wav").chmod(0)
    write(tmp_path / "s" / "closed" / "2.wav").parent.chmod(0)
    root = os.geteuid() == 0
    if root:  # who may read everything
        for path in takewhile(Path(tempfile.gettempdir()).__ne__, (tmp_path, *tmp_path.parents)):
            path.chmod(0o755)
        os.seteuid(65534)
    try:
        outcome = reasons(folder.candidates(tmp_path, 8))
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "s" / "closed").chmod(0o755)
    assert outcome == dict.fromkeys(("s/1.wav", "s/closed"), "unreadable: Permission denied")


def test_a_missing_or_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        folder.candidates(tmp_path / "none", 8)
    write(tmp_path / "no speaker.wav")
    with pytest.raises(InputError, match="no <speaker>/"):
        folder.candidates(tmp_path, 8)


def test_candidates_have_the_sex_of_their_speaker(tmp_path):
    for name in ("ann/1.wav", "bob/1.wav"):
        write(tmp_path / name)
    (tmp_path / "speakers.csv").write_text("speaker,sex\nann,f\n")
    for found in (folder.candidates(tmp_path, 8), folder.named(tmp_path, ["ann/1.wav", "bob/1.wav"])):
        assert [(candidate.speaker, candidate.sex, candidate.part) for candidate in found] == [
            ("ann", "f", ""),
            ("bob", "", ""),
        ]
