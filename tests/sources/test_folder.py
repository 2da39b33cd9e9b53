import os
import tempfile
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from src.runtime.errors import AudioError, InputError
from src.sources import folder
from src.sources.candidate import Offer


def write(path, samples=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).uniform(-0.3, 0.3, samples), 16_000)
    return path


def trial_list(place, *lines):
    (place / "trials.txt").write_text("\n".join(lines))
    return str(place / "trials.txt")


def reasons(candidates):
    """{utt_id: reason, or the number of samples}"""
    outcome = {}
    if isinstance(candidates, Offer):
        outcome, candidates = {utt_id: why for utt_id, _, why in candidates.skipped}, candidates.candidates
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
    found = folder.listing(tmp_path, 8).candidates
    assert [(c.speaker, c.utt_id) for c in found] == [
        ("a", "a/x/y/ö ü.ogg"),
        ("a", "a/x/z,1.mp3"),
        ("b", "b/10/1.flac"),
        ("b", "b/2.WAV"),
    ]
    assert set(reasons(found).values()) == {16_000}


def test_no_more_is_decoded_than_needed(tmp_path):
    write(tmp_path / "a" / "1.wav", 20 * 16_000)
    assert 2 * 16_000 <= reasons(folder.listing(tmp_path, 2).candidates)["a/1.wav"] < 3 * 16_000
    write(tmp_path / "b" / "1.wav")
    tested = folder.listing(tmp_path, 2, 1, trial_list(tmp_path, "1 a/1.wav a/1.wav", "0 a/1.wav b/1.wav")).tested
    assert reasons(tested) == {"a/1.wav": 20 * 16_000, "b/1.wav": 16_000}


def test_links_are_followed_once_and_faults_are_reasons(tmp_path):
    write(tmp_path / "s" / "real" / "1.wav")
    (tmp_path / "s" / "dangling.wav").symlink_to("nowhere.wav")
    (tmp_path / "s" / "itself.wav").symlink_to("itself.wav")
    (tmp_path / "s" / "again").symlink_to("real")
    (tmp_path / "s" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "s" / "pipe.wav")
    (tmp_path / "elsewhere").symlink_to("s/real")
    assert reasons(folder.listing(tmp_path, 8)) == {
        "s/real/1.wav": 16_000,
        "s/dangling.wav": "dangling link",
        "s/itself.wav": "unreadable: Too many levels of symbolic links",
        "s/again": "link to a folder already read",
        "s/up": "link to a folder already read",
        "s/pipe.wav": "not a regular file",
        "elsewhere": "link to a folder already read",
    }


def test_a_name_that_is_not_utf_8_is_escaped(tmp_path):
    plain = write(tmp_path / "s" / "1.wav")
    try:
        os.rename(plain, os.fsencode(tmp_path) + b"/s/\xff.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert reasons(folder.listing(tmp_path, 8)) == {"s/\\xff.wav": 16_000}


def test_no_permission_is_a_reason(tmp_path):
    write(tmp_path / "s" / "1.wav").chmod(0)
    write(tmp_path / "s" / "closed" / "2.wav").parent.chmod(0)
    root = os.geteuid() == 0
    if root:  # who may read everything
        for path in takewhile(Path(tempfile.gettempdir()).__ne__, (tmp_path, *tmp_path.parents)):
            path.chmod(0o755)
        os.seteuid(65534)
    try:
        outcome = reasons(folder.listing(tmp_path, 8))
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "s" / "closed").chmod(0o755)
    assert outcome == dict.fromkeys(("s/1.wav", "s/closed"), "unreadable: Permission denied")


def test_a_missing_or_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        folder.listing(tmp_path / "none", 8)
    write(tmp_path / "no speaker.wav")
    with pytest.raises(InputError, match="no recording in a folder directly below it; 1 no speaker"):
        folder.listing(tmp_path, 8)


def test_what_is_decoded_is_found_by_trying_and_the_rest_is_counted_or_listed(tmp_path):
    speaker = tmp_path / "s"
    write(speaker / "1.wav")
    for name, container, subtype in (
        ("2.oga", "OGG", "OPUS"),
        ("3.opus", "OGG", "OPUS"),
        ("4.aiff", "AIFF", "PCM_16"),
        ("5.caf", "CAF", "PCM_16"),
        ("6.sph", "NIST", "PCM_16"),
        ("7", "FLAC", "PCM_16"),
        ("8.dat", "W64", "PCM_16"),
    ):
        soundfile.write(
            speaker / name, np.random.default_rng(0).uniform(-0.3, 0.3, 16_000), 16_000, subtype, None, container
        )
    (speaker / "headerless.raw").write_bytes(bytes(range(256)) * 200)
    (speaker / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(range(256)))
    (speaker / "phone.amr").write_bytes(b"#!AMR\n" + bytes(range(256)))
    (speaker / "broken.flac").write_bytes(b"fLaC")
    for name in ("LICENSE", "1.phn", "1.txt", "speaker.json"):
        (speaker / name).write_text("0 2260 h# \u00f6\n" * 200)
    (speaker / "utf16").write_text("0 2260 h#\n" * 30, encoding="utf-16")
    (speaker / "face.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)))
    write(tmp_path / ".cache" / "1.wav")
    write(speaker / ".ipynb_checkpoints" / "1.wav")
    (speaker / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    listing = folder.listing(tmp_path, 8)
    outcome = reasons(listing)
    unknown = "not decodable: Format not recognised"
    assert {name: why for name, why in outcome.items() if why != 16_000} == {
        "s/headerless.raw": unknown,
        **{f"s/{name}": outcome[f"s/{name}"] for name in ("phone.m4a", "phone.amr", "broken.flac")},
    }
    assert all(
        str(outcome[f"s/{name}"]).startswith("not decodable") for name in ("phone.m4a", "phone.amr", "broken.flac")
    )
    assert len(outcome) == 12
    assert "passed over: files that are no audio (6), names that begin with a dot (3)" in listing.notes
    usable = {os.path.relpath(file, tmp_path) for file, fault in folder.audio_files(tmp_path) if not fault}
    # Whether AMR without frames is seen by its head depends on the decoder that is there.
    assert usable - {"s/phone.amr"} == {*outcome} - {"s/phone.m4a", "s/phone.amr"}


def test_speakers_may_be_levels_below(tmp_path):
    for name in ("north/ann/1.wav", "north/bob/x/1.wav", "south/ann/1.wav", "south/kim/1.wav", "south/lost.wav"):
        write(tmp_path / name)
    (tmp_path / "speakers.csv").write_text("speaker,sex\nbob,m\nann,f\n")
    listing = folder.listing(tmp_path, 8, level=2)
    assert {c.utt_id: (c.speaker, c.sex) for c in listing.candidates} == {
        "north/ann/1.wav": ("north/ann", ""),
        "north/bob/x/1.wav": ("bob", "m"),
        "south/ann/1.wav": ("south/ann", ""),
        "south/kim/1.wav": ("kim", ""),
    }
    assert listing.skipped == [("south/lost.wav", "south", "no speaker: not in a folder 2 levels below data.path")]
    trials = trial_list(tmp_path, "1 south/kim/1.wav south/kim/1.wav", "0 south/kim/1.wav north/ann/1.wav")
    named = folder.listing(tmp_path, 8, 2, trials)
    assert [c.speaker for c in named.tested] == ["north/ann", "kim"]
    assert [c.speaker for c in named.candidates] == ["bob", "south/ann"]
    assert "1 of 2 speakers of speakers.csv is not in the folder: ann" in listing.notes


def hints(folder_, level=1):
    return [note for note in folder.listing(folder_, 8, level).notes if "set data.level" in note]


def test_a_level_above_the_speakers_is_suspected(tmp_path):
    for region in ("east", "west"):
        for speaker in range(4):
            for recording in range(3):
                write(tmp_path / "regions" / region / f"{region}{speaker}" / f"{recording}.wav", 8)
    assert hints(tmp_path / "regions") == [
        "data.path: 2 of 2 speakers hold folders (4 each) of recordings; if those are the speakers, set data.level: 2"
    ]
    assert not hints(tmp_path / "regions", level=2)
    assert hints(tmp_path)[0].endswith("set data.level: 2") and hints(tmp_path, level=2)[0].endswith("data.level: 3")
    for name in (
        "book/ann/a/1.wav",
        "book/ann/a/2.wav",
        "book/bob/b/1.wav",
        "vox/id10001/a/1.wav",
        "vox/id10001/b/1.wav",
    ):
        write(tmp_path / name, 8)
    assert not hints(tmp_path / "book") and not hints(tmp_path / "vox")


def test_names_are_in_one_unicode_form(tmp_path):
    write(tmp_path / "Zoe\u0308" / "1.wav")
    write(tmp_path / "Zo\u00eb" / "1.wav")
    write(tmp_path / "Zo\u00eb" / "2.wav")
    (tmp_path / "speakers.csv").write_text("speaker,sex\nZoe\u0308,f\n")
    listing = folder.listing(tmp_path, 8)
    assert [(c.utt_id, c.speaker, c.sex) for c in listing.candidates] == [
        (f"Zo\u00eb/{i}.wav", "Zo\u00eb", "f") for i in (1, 2)
    ]
    assert [why for *_, why in listing.skipped] == ["name: another file has the same one in Unicode's form NFC"]
