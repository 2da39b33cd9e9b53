from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from src.common import params
from src.runtime.errors import AudioError
from src.sources.candidate import Candidate, Offer
from src.sources.sampling import sample
from src.sources.select import shuffled

DATA = params.load(Path(__file__).parents[2] / "params.yaml").data
PARTS = {"t": "train", "v": "validation", "p": "test"}


def candidates(speakers):
    """{speaker: the part of each utterance by its first letter, or x for one of train that cannot be decoded}"""

    def read(seed, fails):
        if fails:
            raise AudioError("empty")
        return np.random.default_rng(seed).uniform(-0.3, 0.3, 24_000).astype(np.float32), 16_000

    return [
        Candidate(
            f"{speaker}/{i}",
            speaker,
            partial(read, [*speaker.encode(), i], part == "x"),
            sex="f",
            part=PARTS[part.replace("x", "t")],
        )
        for speaker, parts in speakers.items()
        for i, part in enumerate(parts)
    ]


def test_of_the_official_splits_enrolments_and_then_probes(tmp_path):
    speakers = {f"s{i}": "ttxtpvpppv" for i in range(9)}
    data = DATA.model_copy(update={"utterances_per_speaker": 5})
    lacking = {"few": "txpppp", "none": "vvv", "mute": "ttttvv"}
    found = sample(
        Offer(candidates(speakers | lacking)), data, seed=0, enrolments=2, seen=set(), folder=tmp_path, official=True
    )
    assert Counter((row.speaker, row.part) for row in found.rows) == {
        (speaker, part): number for speaker in speakers for part, number in (("train", 2), ("test", 3))
    }
    assert {row.sex for row in found.rows} == {"f"}
    assert found.dropped == {"few": "1 usable in train", "none": "0 usable in train", "mute": "0 usable in test"}
    reasons = {utt_id: reason for utt_id, speaker, reason in found.skipped if speaker in lacking}
    assert reasons == {
        "few/1": "empty",
        **{f"mute/{i}": "too few of this speaker in test: 0, 1 are needed" for i in range(4)},
        **{f"few/{i}": "too few of this speaker in train: 1, 2 are needed" for i in (0, 2, 3, 4, 5)},
    }
    assert len(list(tmp_path.iterdir())) == len(found.rows) == 45


def test_a_speaker_has_a_probe_beside_the_enrolments_whatever_the_limit(tmp_path):
    data = DATA.model_copy(update={"utterances_per_speaker": 2})
    speakers = {f"s{i}": "t" * 6 for i in range(8)} | {"few": "ttt"}
    found = sample(Offer(candidates(speakers)), data, seed=0, enrolments=3, seen=set(), folder=tmp_path)
    assert Counter(Counter(row.speaker for row in found.rows).values()) == {4: 8}
    assert found.dropped == {"few": "3 usable"}


def test_what_two_speakers_have_goes_and_others_come_in_the_place_of_who_is_left_with_too_few(tmp_path):
    """Of ten speakers eight are wanted; two of those first tried have their recordings in common."""
    offered = candidates({f"s{i}": "tt" for i in range(10)})
    first, second = shuffled([f"s{i}" for i in range(10)], 0)[:2]
    audio = {f"{second}/{i}": next(c.read for c in offered if c.utt_id == f"{first}/{i}") for i in range(2)}
    offered = [replace(c, read=audio.get(c.utt_id, c.read)) for c in offered]
    data = DATA.model_copy(update={"speakers": 8, "utterances_per_speaker": 2})
    offer = Offer(offered, skipped=[("x", "", "unreadable")])
    found = sample(offer, data, seed=0, enrolments=1, seen=set(), folder=tmp_path)
    assert {row.speaker for row in found.rows} == {f"s{i}" for i in range(10)} - {first, second}
    assert found.dropped == {first: "0 usable", second: "0 usable"}
    assert {utt_id: why for utt_id, _, why in found.skipped} == {
        "x": "unreadable",
        **{
            f"{a}/{i}": f"duplicate: the same audio as {b}/{i}"
            for a, b in ((first, second), (second, first))
            for i in (0, 1)
        },
    }
    assert {Path(row.path).name for row in found.rows} == {path.name for path in tmp_path.iterdir()}


def test_a_trial_list_keeps_what_it_names_twice_and_nobody_else_has_it(tmp_path):
    """Of its own speaker or of two: the list says what is compared, and others cannot be trained on it."""
    tested = candidates({"a": "tt", "b": "tt"})
    tested = [replace(c, read=tested[0].read if c.utt_id in ("a/1", "b/1") else c.read) for c in tested]
    others = candidates({f"s{i}": "tt" for i in range(6)})
    others += [replace(c, read=tested[0].read if c.utt_id == "x/1" else c.read) for c in candidates({"x": "ttt"})]
    found = sample(Offer(others, tested), DATA, seed=0, enrolments=1, seen=set(), folder=tmp_path)
    assert {row.utt_id for row in found.rows if row.split == "test"} == {"a/0", "a/1", "b/0", "b/1"}
    assert found.repeats == [("a/1", "a/0"), ("b/1", "a/0")]
    assert found.skipped == [("x/1", "x", "duplicate: the same audio as a/0")] and found.dropped == {}
    assert {Path(row.path).name for row in found.rows} == {path.name for path in tmp_path.iterdir()}
