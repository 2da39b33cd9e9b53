"""What PyAV decodes: the same samples as FFmpeg's own program, and what is refused."""

import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from src.runtime import audio
from src.runtime.containers import media_format
from src.runtime.errors import AudioError
from src.sources.folder import audio_files
from tests.workspace import ROOT

av = pytest.importorskip("av", reason="PyAV is in requirements-media.txt")

# By the ending: codec, sample rate, channels.
FORMATS = {
    "m4a": ("aac", 44_100, 1),
    "mp4": ("aac", 48_000, 2),
    "aac": ("aac", 16_000, 1),
    "webm": ("libopus", 48_000, 2),
    "mka": ("pcm_s16le", 16_000, 1),
    "wma": ("wmav2", 22_050, 1),
    "amr": ("libopencore_amrnb", 8_000, 1),
}
SECONDS = 3


def made(path, ending):
    """A file of noise in syllables, with PyAV's encoders."""
    codec, rate, channels = FORMATS[ending]
    rng = np.random.default_rng(len(ending))
    level = np.repeat(rng.uniform(0, 0.3, SECONDS * 8), rate // 8)
    samples = (level * rng.standard_normal((channels, len(level)))).clip(-1, 1).astype(np.float32)
    if ending == "mp4":  # with a picture before the sound
        container = av.open(str(path), "w")
        picture = container.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
    else:
        container = av.open(
            str(path), "w", format={"aac": "adts", "m4a": "ipod", "mka": "matroska", "wma": "asf"}.get(ending)
        )
        picture = None
    with container:
        stream = container.add_stream(codec, rate=rate, layout="stereo" if channels == 2 else "mono")
        stream.bit_rate = 12_200 if ending == "amr" else 64_000
        if picture:
            for _ in range(5 * SECONDS):
                container.mux(picture.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(picture.encode(None))
        convert = av.AudioResampler(format=stream.format.name, frame_size=stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=stream.layout.name)
        frame.sample_rate = rate
        for part in (*convert.resample(frame), *convert.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("media")
    for ending in FORMATS:
        made(place / f"a.{ending}", ending)
    return place


@pytest.mark.parametrize("ending", FORMATS)
def test_samples_are_those_of_ffmpeg(folder, ending):
    path = folder / f"a.{ending}"
    _, rate, channels = FORMATS[ending]
    samples, found = audio.decode_path(path)
    assert found == rate and samples.dtype == np.float32 and samples.shape[1] == channels
    assert abs(len(samples) - SECONDS * rate) < 0.1 * rate
    first, _ = audio.decode_path(path, seconds=1)
    assert np.array_equal(first, samples[: len(first)]) and rate < len(first) < 1.5 * rate
    if not shutil.which("ffmpeg"):
        pytest.skip("ffmpeg is not installed: nothing to compare with")
    command = ["ffmpeg", "-v", "error", "-i", path, "-f", "f32le", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    expected = np.frombuffer(raw, "<f4").reshape(-1, channels)
    assert len(samples) == len(expected)  # sample by sample; the last digits are those of FFmpeg's version
    assert np.abs(samples - expected).max() < 1e-6


def test_files_of_these_formats_are_recordings_of_a_folder_whatever_they_are_called(folder, tmp_path):
    shutil.copy(folder / "a.m4a", tmp_path / "call.bin")
    assert all(fault is None for _, fault in audio_files(folder)) and len(list(audio_files(folder))) == len(FORMATS)
    assert list(audio_files(tmp_path)) == [(str(tmp_path / "call.bin"), None)]
    waveform, differ = audio.waveform(tmp_path / "call.bin", max_seconds=2)
    assert len(waveform) == 32_000 and not differ


@pytest.mark.parametrize("ending", ["m4a", "mp4", "mka", "webm", "wma"])
def test_what_is_cut_short_is_refused(folder, tmp_path, ending):
    data = (folder / f"a.{ending}").read_bytes()
    with pytest.raises(AudioError, match="truncated: |not decodable: "):
        audio.decode(io.BytesIO(data[: len(data) // 2]))


def test_a_file_that_is_no_sound_and_one_that_is_damaged_are_refused(folder, tmp_path):
    silent = tmp_path / "silent.mp4"
    with av.open(str(silent), "w") as container:
        picture = container.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
        for frame in (av.VideoFrame(64, 64, "yuv420p"), None):
            container.mux(picture.encode(frame))
    with pytest.raises(AudioError, match="no audio in this MP4"):
        audio.decode_path(silent)
    damaged = b"\x1aE\xdf\xa3" + np.random.default_rng(0).bytes(5_000)
    with pytest.raises(AudioError, match="not decodable: "):
        audio.decode(io.BytesIO(damaged))
    (tmp_path / "damaged.webm").write_bytes(damaged)
    faults = dict(audio_files(tmp_path))
    assert faults[str(silent)].startswith("not decodable: ") and faults[str(tmp_path / "damaged.webm")]


def test_what_libsndfile_knows_it_decodes(tmp_path):
    for container, subtype in (("WAV", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS"), ("FLAC", "PCM_16")):
        file = io.BytesIO()
        soundfile.write(
            file, np.random.default_rng(0).uniform(-0.3, 0.3, 48_000), 16_000, format=container, subtype=subtype
        )
        assert media_format(file) is None, container


def test_without_pyav_the_reason_says_what_to_install(folder):
    program = "import sys; sys.modules['av'] = None; from src.runtime.audio import waveform; waveform(sys.argv[1])"
    for ending, name in (("m4a", "MP4"), ("wma", "WMA"), ("aac", "AAC"), ("amr", "AMR")):
        command = [sys.executable, "-c", program, folder / f"a.{ending}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert f"AudioError: {name}: to decode it, install PyAV (requirements-media.txt)" in done.stderr
