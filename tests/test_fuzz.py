"""Whatever the parameters, the audio and the checkpoint's text files hold: success, or one clear error."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.common import params
from src.data.trial_list import read_trial_list
from src.encoder import hyperparams, labels
from src.runtime import audio
from src.runtime.errors import AudioError, InputError

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text())
CHECKPOINT = ROOT / "models/pretrained/ecapa-mini"
ENCODINGS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "PCM_U8"),
    ("WAV", "IMA_ADPCM"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
]
SPEECH = np.random.default_rng(0).normal(0, 0.1, (9_600, 2)).clip(-1, 1)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(section, path=()):
    yield path
    for key, value in section.items() if isinstance(section, dict) else ():
        yield from places(value, (*path, key))


def cases(number):
    return settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck))


def damaged(text):
    """Copies of a text in which some places are cut, repeated or overwritten."""
    piece = st.sampled_from(
        [
            "!",
            "&a ",
            "*a",
            "!ref <",
            ">",
            "[",
            "{",
            "- ",
            ": ",
            "\n",
            "!!int ",
            "!new:os.system",
            "<<: ",
            "1" * 5_000,
            "\x00",
            "é",
            "..",
            "!!timestamp ",
        ]
    ) | st.text(max_size=6)
    edit = st.tuples(st.integers(0, len(text)), st.integers(0, 40), piece)

    def apply(edits):
        changed = text
        for at, length, new in edits:
            changed = changed[:at] + new + changed[at + length :]
        return changed

    return st.lists(edit, min_size=1, max_size=5).map(apply)


def outcome(read, path):
    """The InputError's message, which names the file in few words, or None."""
    try:
        read(path)
    except InputError as error:
        message = str(error)
        lines = message.splitlines()
        assert path.name in message and all(len(line) < 1_000 for line in lines)
        return message


@cases(600)
@given(st.lists(st.tuples(st.sampled_from(list(places(SHIPPED))[1:]), values), min_size=1, max_size=3))
def test_parameters_of_any_value(tmp_path_factory, changes):
    content = copy.deepcopy(SHIPPED)
    for path, value in changes:
        section = content
        for key in path[:-1]:
            section = section[key] if isinstance(section, dict) and key in section else {}
        if isinstance(section, dict):
            section[path[-1]] = value
    file = tmp_path_factory.getbasetemp() / "params.yaml"
    try:
        file.write_text(yaml.safe_dump(content))
    except UnicodeEncodeError:
        return
    message = outcome(params.load, file)
    if message is None:
        assert params.load(file).model_dump()


@cases(600)
@given(damaged((ROOT / "params.yaml").read_text()))
def test_parameters_of_any_text(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "params.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(params.load, file)


@cases(600)
@given(damaged((CHECKPOINT / "hyperparams.yaml").read_text()))
def test_hyperparams_of_any_text(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "hyperparams.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(lambda path: hyperparams.read(path, "encoder.source: x"), file)


@cases(300)
@given(damaged("".join(f"'train{i:04d}' => {i}\n" for i in range(20)) + "====\n'starting_index' => 0\n"))
def test_labels_of_any_text(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "label_encoder.txt"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(labels.parse, file)


@cases(300)
@given(damaged("1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n"), st.booleans())
def test_trial_lists_of_any_text(tmp_path_factory, text, checked):
    file = tmp_path_factory.getbasetemp() / "trials.txt"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(lambda path: read_trial_list(path, ("a/1.wav", "a/1.flac", "a/2.wav") if checked else ()), file)


def usable(data):
    """The audio of a file with these bytes, or None with a reason that is one line."""
    try:
        pcm = audio.prepare(*audio.decode(io.BytesIO(data), seconds=1), max_seconds=1)
    except AudioError as error:
        assert str(error) and len(str(error).splitlines()) == 1
        return None
    assert pcm.dtype == np.int16 and pcm.ndim == 1 and 4_800 <= len(pcm) <= 16_000
    return pcm


@cases(900)
@given(
    st.sampled_from(ENCODINGS),
    st.sampled_from([8_000, 16_000, 44_100, 96_000]),
    st.integers(1, 2),
    st.lists(st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=8)), max_size=12),
    st.integers(0, 40_000),
)
def test_audio_with_damaged_bytes(encoding, rate, channels, damage, cut):
    if encoding[0] == "MP3" and rate == 96_000:
        rate = 48_000
    file = io.BytesIO()
    soundfile.write(file, SPEECH[:, :channels], rate, format=encoding[0], subtype=encoding[1])
    data = bytearray(file.getvalue())
    for at, new in damage:
        at %= min(len(data), 300) if at % 2 else len(data)
        data[at : at + len(new)] = new
    usable(bytes(data[: max(0, len(data) - cut)]) if cut % 3 == 0 else bytes(data))


@cases(300)
@given(
    st.binary(max_size=400), st.sampled_from([b"", b"RIFF\x00\x10\x00\x00WAVEfmt ", b"fLaC", b"OggS", b"\xff\xfb\x90"])
)
def test_any_bytes_as_audio(tail, head):
    usable(head + tail)


@cases(300)
@given(st.lists(st.floats(width=32), min_size=1, max_size=50), st.integers(1, 3), st.integers(1, 400_000))
def test_any_samples_at_any_rate(values, channels, rate):
    samples = np.resize(np.array(values, np.float32), (9_000, channels))
    try:
        pcm = audio.prepare(samples, rate, max_seconds=2)
    except AudioError as error:
        assert str(error)
    else:
        assert pcm.dtype == np.int16 and len(pcm) >= 4_800 and np.abs(pcm.astype(int)).max() > 0
