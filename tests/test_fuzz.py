"""Whatever the parameters, the audio and the checkpoint's text files hold: success, or one clear error."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.common import params
from src.data.trial_list import read_trial_list
from src.encoder import hyperparams, labels
from src.runtime import audio
from src.runtime.errors import AudioError, InputError

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
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

PIECES = ("!", "&a ", "*a", "!ref <", ">", "[", "{", "- ", ": ", "\n", "!!int ", "!new:os.system", "<<: ", "1" * 5_000)
PIECES += ("\x00", "é", "..", "!!timestamp ")


def cases(number):
    return settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck))


def damaged(text):
    """Copies of a text in which some places are cut, repeated or overwritten."""
    piece = st.sampled_from(PIECES) | st.text(max_size=6)
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


TEXTS = {
    "params.yaml": ((ROOT / "params.yaml").read_text(), params.load),
    "hyperparams.yaml": (
        (CHECKPOINT / "hyperparams.yaml").read_text(),
        lambda path: hyperparams.read(path, "encoder.source: x"),
    ),
    "label_encoder.txt": ("'train0001' => 0\n'train0002' => 1\n====\n'starting_index' => 0\n", labels.parse),
    "trials.txt": ("1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n", read_trial_list),
    "trials of files.txt": (
        "1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n",
        lambda path: read_trial_list(path, ("a/1.wav", "a/1.flac", "a/2.wav")),
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_files_of_any_text(tmp_path, name):
    text, read = TEXTS[name]

    @cases(500)
    @given(damaged(text))
    def check(changed):
        (tmp_path / name).write_bytes(changed.encode("utf-8", "surrogatepass"))
        outcome(read, tmp_path / name)

    check()


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
@given(st.lists(st.floats(width=32), min_size=1, max_size=50), st.integers(1, 3), st.integers(1, 400_000))
def test_any_samples_at_any_rate(values, channels, rate):
    samples = np.resize(np.array(values, np.float32), (9_000, channels))
    try:
        pcm = audio.prepare(samples, rate, max_seconds=2)
    except AudioError as error:
        assert str(error)
    else:
        assert pcm.dtype == np.int16 and len(pcm) >= 4_800 and np.abs(pcm.astype(int)).max() > 0
