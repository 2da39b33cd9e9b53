import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from src.common.params import Breakdown
from src.data.manifest import Row
from src.data.recordings import load_audio, save
from src.evaluate import conditions, extract, metrics, scores, transmission
from src.evaluate.extract import embed
from src.evaluate.trials import all_pairs
from src.runtime.errors import InputError
from tests.evaluate.conftest import save_model

# Shorter than what a file may ask for: the audio here is a quarter of a second.
WANTED = Breakdown.model_construct(seconds=[0.1, 0.2], snr=[10.0, -10.0], channels=["reverberation"], utterances=2)


def rows(counts, seen=()):
    return [
        Row(f"{name}/{i}", name, "test", f"{name}{i}.flac", 3.0, int(name in seen))
        for name, count in counts.items()
        for i in range(count)
    ]


def test_chosen_rows_are_bounded_per_speaker():
    chosen = conditions.choose(rows({"a": 5, "b": 2, "c": 9}), enrolments=1, utterances=3)
    assert Counter(row.speaker for row in chosen) == {"a": 4, "b": 2, "c": 4}
    assert [row.utt_id for row in chosen[:4]] == ["a/0", "a/1", "a/2", "a/3"]


def test_speakers_that_the_encoder_knows_are_left_out_where_enough_others_are_there():
    counts = {"a": 3, "b": 3, "c": 3}
    assert {row.speaker for row in conditions.choose(rows(counts, seen="a"), 1, 2)} == {"b", "c"}
    assert {row.speaker for row in conditions.choose(rows(counts, seen="ab"), 1, 2)} == {"a", "b", "c"}
    assert {row.speaker for row in conditions.choose(rows(counts | {"b": 1}, seen="a"), 1, 2)} == {"a", "b", "c"}


def test_noise_is_mixed_at_its_ratio():
    rng = np.random.default_rng(0)
    clean, noise = 0.01 * rng.normal(size=4000).astype("float32"), 7 * rng.normal(size=4000)
    for snr in (20, 0, -5):
        mixed = conditions.mix(clean, noise, snr)
        assert mixed.dtype == np.float32
        added = mixed.astype(float) - clean
        assert 10 * np.log10(np.mean(clean.astype(float) ** 2) / np.mean(added**2)) == pytest.approx(snr, abs=0.01)
    assert np.abs(conditions.mix(50 * clean, noise, -20)).max() == pytest.approx(1)


def test_babble_repeats_by_seed_and_has_every_voice_at_one_power():
    pool = [
        level * np.random.default_rng(i).normal(size=500 + 100 * i)
        for i, level in enumerate((0.01, 1, 5, 0.1, 2, 30, 1, 1))
    ]
    first, again = (conditions.babble(pool, 3000, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, conditions.babble(pool, 3000, np.random.default_rng(4)))
    assert len(first) == 3000 and np.mean(first**2) == pytest.approx(conditions.TALKERS, rel=0.05)
    assert len(conditions.babble(pool[:2], 100, np.random.default_rng(0))) == 100
    with pytest.raises(InputError, match="validation is empty"):
        conditions.babble([], 100, np.random.default_rng(0))


@pytest.fixture
def tones(project):
    """Rows of twelve speakers, four utterances of a quarter of a second each: a tone of their own in noise."""
    rng, made = np.random.default_rng(0), rows({f"t{s:02}": 4 for s in range(12)})
    for index, row in enumerate(made):
        speaker, number = divmod(index, 4)
        times = np.arange(4000 + 200 * number) / 16_000
        sound = np.sin(2 * np.pi * (300 + 500 * speaker) * times + number) + 0.6 * rng.normal(size=len(times))
        save(row.path, (3000 * sound / np.abs(sound).max()).astype(np.int16))
    return made


def test_a_worse_model_is_worse_by_its_own_error_less_that_of_the_first(tones):
    save_model("worse.onnx", size=2)
    wanted = WANTED.model_copy(update={"snr": [10.0], "utterances": 3})
    table = conditions.breakdown(
        {"fp32": "a.onnx", "worse": "worse.onnx"}, tones, [load_audio(tones[0])], wanted, 1, 300, 0
    )
    reference, worse = (dict(zip(conditions.COLUMNS, line)) for line in table if line[:2] == ("snr", "10"))
    difference, low, high = (float(worse[key]) for key in ("difference", "difference_low", "difference_high"))
    assert difference == pytest.approx(float(worse["eer"]) - float(reference["eer"]), abs=2e-6)
    assert 0.05 < low < difference < high < 0.4


def heard(rows_, pool, seed):
    """What `breakdown` lets models hear: {utterance: waveform} of each call."""
    calls, embed_by = [], extract.embed_by

    def listen(sessions, rows_, audio):
        calls.append({row.utt_id: audio(row).astype(float) for row in rows_})
        return embed_by(sessions, rows_, audio=audio)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "embed_by", listen)
        conditions.breakdown({"fp32": "a.onnx"}, rows_, pool, WANTED, 1, 20, seed)
    return calls


def test_every_utterance_hears_a_babble_of_its_own_at_the_ratio_asked_for(project):
    pool = [load_audio(row) for row in project[24:]]
    whole, *cuts, louder, softer, _ = heard(project[:8], pool, 0)
    assert [{len(audio) for audio in cut.values()} for cut in cuts] == [{1600}, {3200}]
    noises = {name: louder[name] - whole[name] for name in louder}
    for name, noise in noises.items():
        for snr, noisy in ((10, louder), (-10, softer)):
            power = np.mean(whole[name] ** 2) / np.mean((noisy[name] - whole[name]) ** 2)
            assert 10 * np.log10(power) == pytest.approx(snr, abs=0.05)
        # One babble an utterance, at every ratio.
        assert np.corrcoef(noise, softer[name] - whole[name])[0, 1] > 0.999
    *_, other, _, _ = heard(project[:8], pool, 1)
    others = [other[name] - whole[name] for name in other]
    for one, two in ((0, 1), (1, 2), (0, 5)):
        first, second = list(noises.values())[one], list(noises.values())[two]
        assert abs(np.corrcoef(first[:4000], second[:4000])[0, 1]) < 0.7
    for noise, changed in zip(noises.values(), others, strict=True):
        assert abs(np.corrcoef(noise, changed)[0, 1]) < 0.7


def test_an_utterance_is_in_a_room_of_its_own_by_seed_and_name_whatever_others_there_are(project):
    pool = [load_audio(row) for row in project[24:]]
    first, fewer, other = (
        heard(rows_, pool, seed)[-1] for rows_, seed in ((project[:12], 0), (project[4:12], 0), (project[:12], 1))
    )
    assert len(first) == 12
    for name, audio in fewer.items():
        np.testing.assert_array_equal(audio, first[name])
        assert not np.array_equal(audio, other[name])


def test_sexes_split_the_nontarget_trials_and_leave_out_what_is_not_known():
    trials = all_pairs(rows({"a": 3, "b": 3, "c": 3, "d": 3}), 1)
    masks = conditions.by_sex(trials, {"a": "f", "b": "f", "c": "m", "d": ""})
    pairs = {
        level: {
            (trials.speakers[e], trials.speakers[t])
            for e, t in zip(trials.enrol_speakers[trials.enrol[mask]], trials.test_speakers[trials.test[mask]])
        }
        for level, mask in masks.items()
    }
    own = {("a", "a"), ("b", "b"), ("c", "c")}
    assert pairs["same"] == own | {("a", "b"), ("b", "a")}
    assert pairs["different"] == own | {("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")}
    assert conditions.by_sex(trials, {}) == {}
    assert list(conditions.by_sex(trials, dict.fromkeys("abcd", "f"))) == ["same"]


def test_table_has_the_sexes_where_they_are_known(project):
    sexes = dict(zip(("s0", "s1", "s2", "s3", "s4", "s5"), ("f", "m", "f", "f", "m", "")))
    told = [replace(row, seen=0, sex=sexes[row.speaker]) for row in project[:24]]
    chosen = conditions.choose(told, 1, 2)
    found = conditions.breakdown({"fp32": "a.onnx"}, chosen, [load_audio(told[0])], WANTED, 1, 100, 0)
    table = {line[:2]: dict(zip(conditions.COLUMNS, line)) for line in found}
    trials = all_pairs(chosen, 1)
    values = scores.cosine(embed("a.onnx", chosen), trials)
    first, second = (
        [sexes[trials.speakers[i]] for i in side]
        for side in (trials.enrol_speakers[trials.enrol], trials.test_speakers[trials.test])
    )
    for level in ("same", "different"):
        kept = np.array(
            [
                a != "" != b and (target or (a == b) == (level == "same"))
                for a, b, target in zip(first, second, trials.targets)
            ]
        )
        expected = metrics.eer(values[kept], trials.targets[kept])
        assert float(table["sex", level]["eer"]) == pytest.approx(expected, abs=1e-6)


def test_table_is_of_the_audio_as_it_was_changed_on_the_side_that_the_condition_names(project):
    chosen = conditions.choose(project, 1, 2)
    pool = [load_audio(row) for row in project[:5]]
    models = {"fp32": "a.onnx"}
    table = conditions.breakdown(models, chosen, pool, WANTED, 1, 100, 0)
    lines = {line[:2]: dict(zip(conditions.COLUMNS, line, strict=True)) for line in table}
    assert list(lines) == [
        *(("seconds", level) for level in ("0.1", "0.2", "full")),
        *(("enrolment_seconds", level) for level in ("0.1", "0.2", "full")),
        *(("snr", level) for level in ("clean", "10", "-10")),
        *((condition, level) for condition in ("channel", "channel_both") for level in ("clean", "reverberation")),
    ]
    for line in lines.values():
        assert line["difference"] == "" and float(line["low"]) <= float(line["eer"]) <= float(line["high"])
    trials, whole = all_pairs(chosen, 1), embed("a.onnx", chosen)

    def room(row):
        return transmission.transmit(
            "reverberation", load_audio(row), np.random.default_rng([0, zlib.crc32(row.utt_id.encode())])
        )

    cut, sent = embed("a.onnx", chosen, audio=lambda row: load_audio(row)[:1600]), embed("a.onnx", chosen, audio=room)
    is_test = np.isin(np.arange(len(chosen)), trials.test_rows)[:, None]
    for key, embeddings in {
        ("seconds", "0.1"): np.where(is_test, cut, whole),
        ("enrolment_seconds", "0.1"): np.where(is_test, whole, cut),
        ("channel", "reverberation"): np.where(is_test, sent, whole),
        ("channel_both", "reverberation"): sent,
        ("channel", "clean"): whole,
    }.items():
        expected = metrics.eer(scores.cosine(embeddings, trials), trials.targets)
        assert float(lines[key]["eer"]) == pytest.approx(expected, abs=1e-6), key
    assert len({line["eer"] for line in lines.values()}) > 4
    assert conditions.breakdown(models, chosen, pool, WANTED, 1, 100, 0) == table
