import io
import itertools
import math
import struct

import numpy as np
import pytest
import soundfile
import soxr
from scipy.signal import firwin, resample_poly

from src.data import recordings
from src.data.manifest import Row
from src.runtime import audio
from src.runtime.errors import AudioError, InputError
from tests.workspace import small_files

NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 3 * 16_000).astype(np.float32)
FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
]


def encoded(samples=NOISE, rate=16_000, container="WAV", subtype="PCM_16"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def sine(frequency, rate, seconds=2.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def reason(function, *args, **kwargs):
    with pytest.raises(AudioError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("container, subtype", FORMATS)
def test_every_format_decodes_and_is_refused_when_cut_short(container, subtype):
    data = encoded(container=container, subtype=subtype)
    samples, rate = audio.decode(io.BytesIO(data))
    assert (samples.shape, samples.dtype, rate) == ((48_000, 1), np.float32, 16_000)
    if container == "OGG":  # it announces no length: what is left of it is a shorter file
        assert len(audio.decode(io.BytesIO(data[: len(data) // 2]))[0]) < 48_000
    else:
        why = reason(audio.decode, io.BytesIO(data[: len(data) // 2]))
        assert why.startswith(("truncated: ", "not decodable: ")), why


def test_a_wav_cut_behind_what_is_used_is_used():
    pcm = np.random.default_rng(1).integers(-9_000, 9_000, 48_000).astype(np.int16)
    data = encoded(pcm)
    samples, _ = audio.decode(io.BytesIO(data[: len(data) // 2]), seconds=1)
    assert np.array_equal(audio.prepare(samples, 16_000, max_seconds=1), pcm[:16_000])


PCM = np.random.default_rng(1).integers(-9_000, 9_000, 8_000).astype(np.int16)
INFO = struct.pack("<4sI4s4sI4s", b"LIST", 16, b"INFO", b"ISFT", 4, b"Lavf")


def wav(riff, data, before=b"", behind=b""):
    """A WAV of PCM with these sizes, and with chunks before or behind its samples."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    samples = PCM.tobytes() if data is not None else b""
    return (
        struct.pack("<4sI4s", b"RIFF", riff, b"WAVE")
        + form
        + before
        + struct.pack("<4sI", b"data", data or 0)
        + samples
        + behind
    )


def patched(container, *changes):
    """PCM in a container, with other bytes at offsets, or behind names, in it."""
    data = bytearray(encoded(PCM, container=container))
    for where, offset, value in changes:
        at = (data.index(where) if where else 0) + offset
        data[at : at + len(value)] = value
    return bytes(data)


STREAMED = {
    "WAV, killed": wav(0, 0),
    "WAV, killed, after the first size was written": wav(36, 0),
    "WAV, RIFF unknown": wav(0, 16_000),
    "WAV, both unknown": wav(2**32 - 1, 2**32 - 1, INFO),
    "WAV, sox": wav(2**31 - 4060, 2**31 - 4096),
    "RF64, killed": patched("RF64", (b"ds64", 8, bytes(24))),
    "RF64, unknown": patched("RF64", (b"ds64", 8, b"\xff" * 24)),
    "FLAC": patched("FLAC", (b"", 12, bytes(6)), (b"", 21, b"\xf0"), (b"", 22, bytes(20))),
    "AIFF, killed": patched("AIFF", (b"", 4, bytes(4)), (b"COMM", 10, bytes(4)), (b"SSND", 4, struct.pack(">I", 8))),
    "AU, killed": patched("AU", (b"", 8, bytes(4))),
    "AU, unknown": patched("AU", (b"", 8, b"\xff" * 4)),
    "CAF, killed": patched("CAF", (b"data", 4, bytes(8))),
    "CAF, unknown": patched("CAF", (b"data", 4, b"\xff" * 8)),
}


@pytest.mark.parametrize("data", STREAMED.values(), ids=STREAMED)
def test_a_placeholder_is_no_length(data):
    samples, rate = audio.decode(io.BytesIO(data))
    assert rate == 16_000 and np.array_equal(samples[:, 0] * 32768, PCM)
    some, _ = audio.decode(io.BytesIO(data), seconds=0.1)
    assert np.array_equal(some[:, 0] * 32768, PCM[: len(some)]) and 1_600 <= len(some) < 8_000


@pytest.mark.parametrize("container", ["WAV", "RF64", "AIFF", "AU", "NIST"])
def test_a_length_that_the_file_does_not_have_is_a_cut(container):
    whole = encoded(PCM, container=container)
    assert len(audio.decode(io.BytesIO(whole))[0]) == 8_000
    for missing in (2, 9_000):
        assert reason(audio.decode, io.BytesIO(whole[:-missing])).startswith("truncated: it ends after 0.")


def test_a_wav_of_no_samples_before_other_chunks_is_empty():
    assert reason(audio.decode, io.BytesIO(wav(60, None, behind=INFO))) == "empty"


def test_an_mp3_without_a_note_of_its_length_is_whole():
    """The length of a stream of varying bit rate is estimated from its first frame, and may be far off."""
    loud = np.concatenate([np.float32(1e-5) * NOISE, NOISE])
    file = io.BytesIO()
    soundfile.write(file, loud, 16_000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    data = file.getvalue()
    frame = data.index(data[:2], 4)  # behind the first, which holds the note
    with soundfile.SoundFile(io.BytesIO(data[frame:])) as stream:
        assert stream.frames > 1.5 * len(loud)
    for stream in (data, b"ID3\x04\0\0\0\0\0\x05tags!" + data):
        assert len(audio.decode(io.BytesIO(stream))[0]) == len(loud)
        assert reason(audio.decode, io.BytesIO(stream[: len(data) // 2])).startswith("truncated")
    assert abs(len(audio.decode(io.BytesIO(data[frame:]))[0]) - len(loud)) < 3 * 1152


@pytest.mark.parametrize("name", ["a.raw", "a.gsm"])
def test_samples_without_a_header_are_not_decoded_by_their_name(tmp_path, name):
    (tmp_path / name).write_bytes(PCM.tobytes())
    assert reason(audio.decode_path, tmp_path / name) == "not decodable: Format not recognised"
    (tmp_path / name).write_bytes(encoded())
    assert len(audio.decode_path(tmp_path / name)[0]) == 48_000


def test_a_full_scale_square_wave_is_scaled_by_resampling_not_clipped():
    """At another rate it is above full scale: its edges overshoot."""
    wave = np.where(np.arange(2 * 44_100) % 147 < 73, 1, -1).astype(np.float32)
    wave[::2] *= np.float32(0.99)  # no flat tops, as those of a clipped recording
    pcm = audio.prepare(wave, 44_100)
    converted = soxr.resample(wave, 44_100, 16_000, quality="HQ")
    assert np.abs(converted).max() > 1.05
    assert np.abs(pcm / 32768 - converted / np.abs(converted).max()).max() < 1e-4


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "empty"),
        (b"not audio at all" * 100, "not decodable: "),
        (b"\xff" * 5_000, "not decodable: "),
        (encoded(NOISE[:0]), "empty"),
    ],
)
def test_what_is_not_audio_is_refused(data, why):
    assert reason(audio.decode, io.BytesIO(data)).startswith(why)


def test_16_bit_mono_at_16_khz_passes_through_unchanged():
    pcm = np.random.default_rng(1).integers(-32768, 32768, 16_000).astype(np.int16)
    samples, rate = audio.decode(io.BytesIO(encoded(pcm)))
    assert np.array_equal(audio.prepare(samples, rate), pcm)


def test_channels_are_averaged():
    left, right = sine(300, 16_000), sine(500, 16_000)
    both = audio.prepare(np.stack([left, right], axis=1), 16_000)
    assert np.abs(both / 32768 - (left + right) / 2).max() <= 0.5 / 32768 + 1e-7


def test_resampling_leaves_nothing_above_half_the_rate():
    mixed = sine(1_000, 44_100) / 2 + sine(11_000, 44_100) / 2
    out = audio.prepare(mixed, 44_100) / 32768
    assert np.abs(out - sine(1_000, 16_000) / 2)[800:-800].max() < 1e-4


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_decoding_only_the_part_that_is_kept_changes_nothing(rate):
    samples = np.random.default_rng(2).uniform(-0.3, 0.3, (4 * rate, 2))
    data = encoded(samples, rate)
    some, _ = audio.decode(io.BytesIO(data), seconds=1.5)
    whole, _ = audio.decode(io.BytesIO(data))
    assert len(some) < len(whole)
    cut = [audio.prepare(part, rate, max_seconds=1.5).astype(int) for part in (some, whole)]
    assert len(cut[0]) == 24_000 and np.abs(cut[0] - cut[1]).max() <= 1


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000])
def test_resampling_is_that_of_a_reference(rate):
    """scipy's polyphase filter, made long: below the band that either filter touches, the samples are the same."""
    passed = firwin(2001, 0.7 * min(rate, 16_000) / 2, fs=rate)
    band = np.convolve(np.random.default_rng(3).uniform(-0.5, 0.5, 2 * rate), passed, "same").astype(np.float32)
    ours = audio.prepare(band, rate) / 32768
    assert len(ours) == 2 * 16_000
    divisor = math.gcd(16_000, rate)
    up, down = 16_000 // divisor, rate // divisor
    longest = max(up, down)
    window = firwin(400 * longest + 1, 1 / longest, window=("kaiser", 12))
    reference = resample_poly(band.astype(float), up, down, window=window)
    short = min(len(ours), len(reference))
    assert np.abs(ours[:short] - reference[:short])[800:-800].max() < 1e-4


def test_a_constant_offset_that_outweighs_the_speech_is_taken_off():
    for rate in (16_000, 44_100):
        tone = sine(300, rate)
        clean, shifted = (audio.prepare(samples, rate) for samples in (tone / 2, tone / 2 + np.float32(0.7)))
        assert np.abs(clean.astype(int) - shifted)[800:-800].max() <= 2
    small = sine(300, 16_000) + np.float32(0.1)  # as a real microphone has
    assert np.array_equal(audio.prepare(small, 16_000), np.rint(small * 32768).astype(np.int16))


def test_only_what_is_clipped_is_refused_as_such():
    loud = (sine(200, 16_000) * 4).clip(-0.7, 0.7)
    assert reason(audio.prepare, loud, 16_000).startswith("clipped: ")
    assert reason(audio.prepare, np.stack([NOISE[:32_000], loud], axis=1), 16_000).startswith("clipped: ")
    quiet = np.rint(NOISE * 100) / 32768  # thirty steps: nothing is cut
    assert len(audio.prepare(quiet.astype(np.float32), 16_000)) == 48_000
    one = NOISE.copy()
    one[100:200] = 1.0
    assert len(audio.prepare(one, 16_000)) == 48_000


def test_a_level_above_full_scale_is_scaled_to_it():
    quiet = sine(300, 16_000)
    for gain in (3, 32768, 1e38):
        loud = audio.prepare((quiet * np.float32(gain)).astype(np.float32), 16_000)
        assert np.abs(loud / 32768 - quiet / np.abs(quiet).max()).max() < 1e-4


@pytest.mark.parametrize(
    "samples, rate, why",
    [
        (np.where(np.arange(48_000) == 7, np.nan, NOISE), 16_000, "NaN or infinite samples"),
        (np.where(np.arange(48_000) == 7, -np.inf, NOISE), 16_000, "NaN or infinite samples"),
        (np.zeros(48_000, np.float32), 16_000, "silent"),
        (np.full(48_000, 0.4, np.float32), 16_000, "silent"),
        (np.stack([NOISE, -NOISE], axis=1), 16_000, "silent"),
        (NOISE[:320], 16_000, "too short: 0.02 s"),
        (NOISE[:0], 16_000, "empty"),
        (NOISE, 4_000, "sample rate: 4000 Hz, under 8000 Hz"),
    ],
)
def test_what_is_not_speech_is_refused(samples, rate, why):
    assert reason(audio.prepare, samples.astype(np.float32), rate) == why


def test_saved_audio_loads_again(tmp_path):
    pcm = audio.prepare(NOISE, 16_000)
    recordings.save(tmp_path / "a.flac", pcm)
    row = Row("u", "s", "test", str(tmp_path / "a.flac"), 3.0, 0)
    loaded = recordings.load_audio(row)
    assert loaded.dtype == np.float32 and np.array_equal(loaded * 32768, pcm)
    waveform = recordings.Waveform(row)
    assert len(waveform) == len(pcm)
    for part in (slice(None), slice(5000), slice(12_345, 20_001), slice(len(pcm) - 3, len(pcm) + 9), slice(9, 9)):
        assert waveform[part].dtype == np.float32 and np.array_equal(waveform[part], loaded[part])
    (tmp_path / "a.flac").unlink()
    with pytest.raises(InputError, match="run the stage sample_data"):
        recordings.load_audio(row)
    with pytest.raises(InputError, match="cannot be written"):
        recordings.save(tmp_path / "no folder" / "a.flac", pcm)


def test_audio_whose_last_bytes_find_no_place_is_told(tmp_path):
    """libsndfile writes them when it closes the file, and does not tell when it cannot."""
    recordings.save(tmp_path / "whole.flac", audio.prepare(NOISE, 16_000))
    size = (tmp_path / "whole.flac").stat().st_size
    for missing in (1, 1_000, 4_000):
        with small_files(size - missing), pytest.raises(InputError, match="cannot be written: File too large"):
            recordings.save(tmp_path / "a.flac", audio.prepare(NOISE, 16_000))


def voiced(seed, seconds=2, rate=16_000):
    """Noise in syllables, as loud and as long as chance has it."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.uniform(0, 1, seconds * 8) ** 2, rate // 8)
    return (0.1 * level * rng.standard_normal(len(level))).astype(np.float32)


def delayed(samples, by):
    return np.concatenate([np.zeros(by, np.float32), samples[: len(samples) - by]])


@pytest.mark.parametrize(
    ("others", "differ"),
    [
        ([lambda voice: voice], False),
        ([lambda voice: 0.2 * voice], False),
        ([lambda voice: delayed(voice, 16)], False),  # 1 ms: two microphones
        ([lambda voice: voice + 0.1 * voiced(8).std() * np.random.default_rng(1).standard_normal(len(voice))], False),
        ([lambda voice: 0 * voice], False),  # nothing is on the other channel
        ([lambda voice: 1e-3 * np.random.default_rng(1).standard_normal(len(voice))], False),  # its noise alone
        ([lambda voice: voiced(9)], True),
        ([lambda voice: 0.3 * voiced(9)], True),
        ([lambda voice: -voice], True),  # they cancel each other out
        ([lambda voice: voice, lambda voice: voiced(9)], True),
    ],
)
def test_channels_differ_where_they_hold_other_sounds(others, differ):
    voice = voiced(8)
    samples = np.stack([voice, *(other(voice) for other in others)], axis=1).astype(np.float32)
    for order in (samples, samples[:, ::-1]):
        assert audio.channels_differ(order, 16_000) is differ
    assert not audio.channels_differ(samples[:, :1], 16_000) and not audio.channels_differ(samples[:500], 16_000)


def test_a_channel_is_chosen(tmp_path):
    left, right = voiced(1), voiced(2)
    soundfile.write(tmp_path / "call.wav", np.stack([left, right], axis=1), 16_000)
    soundfile.write(tmp_path / "mono.wav", left, 16_000)
    mean, differ = audio.waveform(tmp_path / "call.wav")
    assert differ and np.allclose(mean, (left + right) / 2, atol=1e-4)
    for channel, samples in ((1, left), (2, right)):
        chosen, differ = audio.waveform(tmp_path / "call.wav", channel=channel)
        assert not differ and np.allclose(chosen, samples, atol=1e-4)
        assert np.allclose(audio.waveform(tmp_path / "mono.wav", channel=channel)[0], left, atol=1e-4)
    with pytest.raises(AudioError, match="no channel 3: it has 2"):
        audio.waveform(tmp_path / "call.wav", channel=3)


def test_two_speakers_of_a_call_differ_and_one_does_not(shared):
    speakers = sorted(path for path in (shared / "speech").iterdir() if path.is_dir())
    voices = [soundfile.read(sorted(speaker.rglob("*.flac"))[0], dtype="float32")[0] for speaker in speakers[:20]]
    for one, other in itertools.pairwise(voices):
        length = min(len(one), len(other), 48_000)
        assert audio.channels_differ(np.stack([one[:length], other[:length]], axis=1), 16_000)
        assert not audio.channels_differ(np.stack([one[:length], delayed(one, 16)[:length]], axis=1), 16_000)
