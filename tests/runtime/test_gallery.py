"""The gallery's file: what is enrolled stays, whatever happens to a process that writes it."""

import os
import signal
import sqlite3
import time

import numpy as np
import pytest

from src.runtime import gallery
from src.runtime.errors import InputError
from src.runtime.gallery import Model, Recording, opened
from src.runtime.scoring import mean_direction
from tests.workspace import small_files

MODEL = Model("a" * 64, "models/qat.onnx")
DIM = 192


def recording(seed, checksum=None, settings="whole"):
    values = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return Recording(checksum or f"{seed:064x}", settings, f"/speech/{seed}.wav", 3.0 + seed, values)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gallery.db"


def names(path):
    with opened(path) as found:
        assert found._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert found._database.execute("PRAGMA foreign_key_check").fetchall() == []
        ((broken,),) = found._database.execute("SELECT count(*) FROM speakers WHERE recordings = 0")
        assert not broken
        return [speaker.name for speaker in found.speakers()]


def test_a_voiceprint_is_the_mean_of_directions_of_all_recordings(path):
    voices = [recording(seed) for seed in range(3)]
    with opened(path, MODEL, create=True) as made:
        made.enrol("Ann", voices[:1])
        made.enrol("Bob", [recording(9)])
        total = made.enrol("Ann", voices[1:])
        assert (total.recordings, total.seconds, made.usual_recordings()) == (3, 12.0, 3)
    with opened(path, MODEL) as found:
        assert len(found) == 2 and [speaker.name for speaker in found.speakers()] == ["Ann", "Bob"]
        ((ids, vectors),) = found.voiceprints()
        np.testing.assert_allclose(vectors[0], mean_direction(np.stack([each.embedding for each in voices])), atol=1e-6)
        assert found.named(ids[::-1])[0] == ["Bob", "Ann"]
        assert found.enrolled("Ann") == {(each.checksum, "whole") for each in voices}
        assert found.others(voices[0].checksum, "Bob") == ["Ann"]


def test_a_recording_read_in_another_way_replaces_itself(path):
    with opened(path, MODEL, create=True) as made:
        made.enrol("Ann", [recording(0), recording(1)])
        total = made.enrol("Ann", [recording(5, checksum=recording(0).checksum, settings="channel 2")])
        assert total.recordings == 2
        np.testing.assert_allclose(
            made.named([1])[1][0], mean_direction(np.stack([recording(5).embedding, recording(1).embedding])), atol=1e-6
        )


def test_names_can_be_changed_and_removed_and_nothing_of_the_removed_stays(path):
    with opened(path, MODEL, create=True) as made:
        for seed, name in enumerate(("Ann", "Bob", "Cem")):
            made.enrol(name, [recording(seed)])
        made.rename("Bob", "Rob")
        with pytest.raises(InputError, match="Cem: is enrolled already"):
            made.rename("Ann", "Cem")
        with pytest.raises(InputError, match="Rop: is not enrolled; did you mean Rob"):
            made.remove(["Ann", "Rop"])
        made.remove(["Rob"])
    assert names(path) == ["Ann", "Cem"]
    left = path.read_bytes()
    assert recording(0).embedding.tobytes() in left and b"/speech/1.wav" not in left and b"Rob" not in left
    assert recording(1).embedding.tobytes() not in left
    assert os.listdir(path.parent) == ["gallery.db"]


def test_what_is_no_gallery_or_of_another_model_is_refused(path, tmp_path):
    for action, message in (
        (lambda: path.mkdir(), "is not a file"),
        (
            lambda: (path.rmdir(), path.write_text("some text, long enough to be no empty database" * 100)),
            "is not a gallery",
        ),
        (lambda: (path.unlink(), sqlite3.connect(path).execute("CREATE TABLE mine (a)")), "is not a gallery"),
    ):
        action()
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(InputError, match=message), opened(path, MODEL, create=True):
            pass
        assert before is None or path.read_bytes() == before
    path.unlink()
    with pytest.raises(InputError, match="no such gallery"), opened(path, MODEL):
        pass
    assert not path.exists()
    with opened(path, MODEL, create=True) as made:
        made.enrol("Ann", [recording(0)])
    other = Model("b" * 64, "models/ptq.onnx")
    with pytest.raises(InputError, match=r"by models/qat.onnx \(SHA-256 aaaa.*by models/ptq.onnx"), opened(path, other):
        pass
    path.write_bytes(b"")
    with pytest.raises(InputError, match="nobody is enrolled"), opened(path, MODEL):
        pass


def test_embeddings_that_cancel_each_other_out_enrol_nobody(path):
    opposite = recording(0)._replace(embedding=-recording(0).embedding, checksum="x")
    with (
        opened(path, MODEL, create=True) as made,
        pytest.raises(InputError, match="Ann: the embeddings of the recordings cancel"),
    ):
        made.enrol("Ann", [recording(0), opposite])
    assert names(path) == []


def enrolling(path, first, report):
    """Enrol speaker after speaker, and write the name of each who is enrolled. Never returns."""
    try:
        with opened(path, MODEL, create=True) as made:
            for number in range(first, first + 10_000):
                made.enrol(f"s{number}", [recording(2 * number), recording(2 * number + 1)])
                os.write(report, f"s{number}\n".encode())
    finally:
        os._exit(1)


def test_twenty_kills_lose_no_enrolled_speaker(path):
    rng, enrolled = np.random.default_rng(0), []
    for kill in range(20):
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            enrolling(path, 10_000 * kill, theirs)
        os.close(theirs)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with open(ours, encoding="ascii") as lines:
            enrolled += lines.read().splitlines()
        # One more may have been enrolled, and not have been told.
        there = set(names(path)) if path.exists() and path.stat().st_size else set()
        assert set(enrolled) <= there and len(there) <= len(enrolled) + kill + 1
    assert len(enrolled) > 10


def test_two_writers_lose_no_speaker_and_no_recording(path):
    children = []
    for writer in range(2):
        child = os.fork()
        if not child:
            status = 1
            try:
                for number in range(15):
                    with opened(path, MODEL, create=True) as made:
                        made.enrol(f"s{writer}.{number}", [recording(100 * writer + number)])
                        made.enrol("both", [recording(1000 + 100 * writer + number)])
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert names(path) == sorted(["both", *(f"s{writer}.{number}" for writer in range(2) for number in range(15))])
    with opened(path) as found:
        assert next(found.speakers()).recordings == 30


def test_a_full_disk_loses_nobody(path):
    with opened(path, MODEL, create=True) as made:
        made.enrol("Ann", [recording(0)])
    done = []
    with (
        small_files(path.stat().st_size + 30_000),
        pytest.raises(InputError, match="cannot be read or written"),
        opened(path, MODEL, create=True) as made,
    ):
        for number in range(100):
            made.enrol(f"s{number}", [recording(number + 1)])
            done.append(f"s{number}")
    assert len(done) > 3 and names(path) == sorted(["Ann", *done])
    with opened(path, MODEL) as made:
        made.enrol("Zoe", [recording(500)])
    assert "Zoe" in names(path)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201])
def test_a_name_is_a_line(name):
    with pytest.raises(InputError, match="not a speaker's name"):
        gallery.speaker_name(name)
    assert gallery.speaker_name(" Zoe\u0308 ") == "Zo\u00eb"
