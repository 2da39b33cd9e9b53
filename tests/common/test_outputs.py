"""Hostile outputs: whatever lies where a command is to write, the world outside is as it was."""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from src import embed
from src.common import files
from src.evaluate import extract
from src.runtime.errors import InputError
from tests.evaluate.conftest import save_model

NAMES = ("out.npz", "o\nut\x1b[2J.npz", "ö中.npz", os.fsdecode(b"\xe9\xff.npz"), "-o", "a" * 250, "*?[a].npz", " ")
# What lies at a path: "" for nothing.
KINDS = {
    "": lambda path: None,
    "a file": lambda path: path.write_bytes(b"mine"),
    "an empty file": lambda path: path.touch(),
    "another archive": lambda path: np.savez(open(path, "wb"), paths=[1], embeddings=[1]),
    "a former output": lambda path: np.savez(open(path, "wb"), **{key: [1] for key in embed.ARRAYS}),
    "an empty folder": lambda path: path.mkdir(),
    "a folder": lambda path: (path.mkdir(), (path / "file").write_bytes(b"mine")),
    "a link to a folder": lambda path: path.symlink_to("elsewhere"),
    "a link to a file": lambda path: path.symlink_to("elsewhere/file"),
    "a link to a former output": lambda path: path.symlink_to("elsewhere/former.npz"),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a hard link": lambda path: path.hardlink_to(path.parent / "elsewhere/file"),
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "a pipe": lambda path: os.mkfifo(path),
}
REPLACED = {"embed": ("", "a former output"), "file": ("", "a file", "an empty file", "a hard link", "another archive")}
REPLACED["file"] += ("a former output", "a link to a file", "a dangling link", "a link to itself")
REPLACED["file"] += ("a link to a former output",)
REPLACED["folder"] = ("", "an empty folder")
BESIDE = (".partial", ".partial-journal", ".before", ".npz")


@pytest.fixture(scope="module", autouse=True)
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    save_model(path)
    return path


@contextlib.contextmanager
def world(model):
    """A working directory with recordings, a model, and other folders."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            for folder in ("speech/deep", "elsewhere/deep"):
                os.makedirs(folder)
                for name in ("a.wav", "file"):
                    Path(folder, name).write_bytes(b"mine")
            for seed in (0, 1):
                sound = np.random.default_rng(seed).uniform(-0.5, 0.5, 8000)
                soundfile.write(f"speech/{seed}.wav", sound, 16_000)
            shutil.copy(model, "model.onnx")
            np.savez("elsewhere/former.npz", **{key: [1] for key in embed.ARRAYS})
            yield Path(place)
        finally:
            os.chdir(before)


def snapshot(place):
    """{path: kind, and content or target} of everything in a folder."""
    found = {}
    for folder, folders, names in os.walk(place):
        for path in (os.path.join(folder, name) for name in (*folders, *names)):
            status = os.lstat(path)
            content = None
            if stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[path] = status.st_mode, content
    return found


def attempt(write, out, place):
    """Whether it was written; whatever else lies in the folder is as it was, and where it was refused so is `out`."""
    before = snapshot(place)
    try:
        write(out)
        done = True
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and str(error).isprintable()
        done = False
    after = snapshot(place)
    if done:
        target = str(place / out)
        before, after = (
            {path: what for path, what in seen.items() if path != target and not path.startswith(f"{target}/")}
            for seen in (before, after)
        )
    assert after == before
    return done


def embedding(out):
    embed.embed("speech", out, "model.onnx")


def file(out):
    files.write_text(out, "ours")


def folder(out):
    with files.atomic_write(out) as new:
        files.write_text(new / "ours", "ours")


WRITERS = {"embed": embedding, "file": file, "folder": folder}


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(WRITERS)), st.sampled_from(NAMES), st.sampled_from(sorted(KINDS)), st.data())
def test_only_what_the_program_made_is_replaced(model, writer, name, kind, data):
    with world(model) as place:
        made = True
        try:
            KINDS[kind](place / name)
        except (OSError, UnicodeError):  # a name that a socket cannot have
            made = False
        beside = data.draw(st.dictionaries(st.sampled_from(BESIDE), st.sampled_from(["a file", "a folder"])))
        for suffix, what in beside.items():
            for path in (place / f"{name}{suffix}", place / f".{name}{suffix}"):
                with contextlib.suppress(OSError):
                    KINDS[what](path)
        done = attempt(WRITERS[writer], name, place)
        allowed = not made or kind in REPLACED[writer]
        if writer == "embed":
            allowed &= ".partial" not in beside and len(os.fsencode(name)) < 240
        assert done == allowed


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("out", [".", "", "speech/", "speech/../speech", "/dev/null", "/dev", "model.onnx/out"])
def test_folders_and_devices_are_refused(model, writer, out):
    with world(model) as place:
        null = os.lstat("/dev/null").st_mode
        assert not attempt(WRITERS[writer], out, place)
        assert os.lstat("/dev/null").st_mode == null


@pytest.mark.parametrize("out", ["speech/deep/a.wav", "./speech/../speech/0.wav", "model.onnx"])
def test_inputs_are_refused_as_the_output(model, out):
    with world(model) as place:
        assert not attempt(embedding, out, place)
        os.symlink(os.path.abspath(out), "link.npz")
        assert not attempt(embedding, "link.npz", place)


def test_an_output_in_use_and_one_among_the_recordings(model):
    with world(model) as place:
        assert attempt(embedding, "speech/out.npz", place) and attempt(embedding, "speech/out.npz", place)
        with open("speech/out.npz", "rb") as reader:
            start = reader.read(10)
            assert attempt(embedding, "speech/out.npz", place)
            assert start + reader.read() == Path("speech/out.npz").read_bytes()


def test_what_appears_during_the_run_is_not_replaced(model, monkeypatch):
    with world(model) as place:
        plain = extract.waveform

        def waveform(*arguments, **options):
            Path("out.npz").write_bytes(b"mine")
            return plain(*arguments, **options)

        monkeypatch.setattr(extract, "waveform", waveform)
        with pytest.raises(InputError, match="out.npz: is there"):
            embedding("out.npz")
        assert Path("out.npz").read_bytes() == b"mine"
        os.rename("out.npz", "mine")
        monkeypatch.undo()
        assert not list(place.glob(".*"))
        embedding("out.npz")  # what was computed is not lost
