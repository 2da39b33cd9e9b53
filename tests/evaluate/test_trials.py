from dataclasses import replace

import numpy as np
import pytest

from src.evaluate import metrics, scores
from src.evaluate.trials import all_pairs, evaluated_rows, from_list
from src.runtime.errors import InputError
from tests.evaluate.simulation import embeddings, rows


def test_all_pairs():
    trials = all_pairs(rows(3, 4), 1)
    assert trials.enrol_names == ("s000/u0.wav", "s001/u0.wav", "s002/u0.wav")
    assert trials.enrol_rows == ((0,), (4,), (8,))
    assert len(trials.test_names) == 9 and "s001/u0.wav" not in trials.test_names
    assert len(trials) == 27 and trials.targets.sum() == 9
    assert trials.enrol.tolist() == sorted(trials.enrol)  # enrolment by enrolment


def test_several_enrolments():
    trials = all_pairs(rows(3, 4), 3)
    assert trials.enrol_names == ("s000", "s001", "s002")
    assert trials.enrol_rows[1] == (4, 5, 6)
    assert trials.test_names == ("s000/u3.wav", "s001/u3.wav", "s002/u3.wav")


def test_speakers_with_too_few_utterances_are_left_out():
    some = rows(4, 3)
    trials = all_pairs(some[:1] + some[3:], 2)
    assert trials.enrol_names == ("s001", "s002", "s003")
    assert [trials.speakers[index] for index in trials.enrol_speakers] == ["s001", "s002", "s003"]
    with pytest.raises(InputError, match="evaluate.enrolments: 3: of 4 speakers 0 have more"):
        all_pairs(some, 3)


def test_beyond_a_bound_pairs_are_a_sample_of_all_targets_and_evenly_of_the_others():
    some = rows(30, 11)
    everything = all_pairs(some, 1, 9000)
    assert len(everything) == 9000 and everything.sampled_from is None
    trials = all_pairs(some, 1, 3000, seed=1)
    assert trials.sampled_from == 9000 and len(trials) == 3000 and trials.targets.sum() == 300
    numbers = trials.enrol * 300 + trials.test
    assert (np.diff(numbers) > 0).all()  # each once, enrolment by enrolment
    assert trials.enrol_names == everything.enrol_names and trials.test_names == everything.test_names
    np.testing.assert_array_equal(numbers, (again := all_pairs(some, 1, 3000, seed=1)).enrol * 300 + again.test)
    other = all_pairs(some, 1, 3000, seed=2)
    assert not np.array_equal(numbers, other.enrol * 300 + other.test)
    drawn = sum(
        np.bincount(sample.enrol * 300 + sample.test, minlength=9000)
        for sample in (all_pairs(some, 1, 3000, seed) for seed in range(200))
    )
    others = drawn[~everything.targets]  # binomial: 2700 of 8700, 200 times
    share = 2700 / 8700
    assert others.std() == pytest.approx((200 * share * (1 - share)) ** 0.5, rel=0.1)
    assert others.max() < 200 * share + 6 * others.std() and others.min() > 200 * share - 6 * others.std()


def test_a_small_sample_is_at_most_half_targets():
    trials = all_pairs(rows(30, 11), 1, 400)
    assert len(trials) == 400 and trials.targets.sum() == 200


def test_eer_and_min_dcf_of_a_sample_are_those_of_all_pairs_on_average():
    some, (model, _) = rows(30, 11), embeddings(np.random.default_rng(0), 30, 11, 0.9)
    whole = all_pairs(some, 1)
    expected = metrics.detection(scores.cosine(model, whole), whole.targets)
    samples = (all_pairs(some, 1, 4000, seed) for seed in range(40))
    found = [metrics.detection(scores.cosine(model, trials), trials.targets) for trials in samples]
    assert expected["eer"] > 0.05
    for key in ("eer", "min_dcf_0.05"):
        values = [values[key] for values in found]
        error = np.std(values) / len(values) ** 0.5
        assert np.mean(values) == pytest.approx(expected[key], abs=4 * error + 0.01 * expected[key])


def test_order_of_rows_decides_who_is_enrolled():
    backwards = rows(2, 3)[::-1]
    assert all_pairs(backwards, 1).enrol_names == ("s001/u2.wav", "s000/u2.wav")


def test_list():
    names = [
        (1, "s001/u1.wav", "s001/u0.wav"),
        (0, "s000/u1.wav", "s001/u0.wav"),
        (1, "s000/u0.wav", "s000/u1.wav"),
        (0, "s000/u0.wav", "s009/u1.wav"),
    ]
    trials = from_list(rows(2, 3), names)
    assert len(trials) == 3  # the last names an utterance that is not there
    found = [
        (int(target), trials.enrol_names[enrol], trials.test_names[test])
        for target, enrol, test in zip(trials.targets, trials.enrol, trials.test)
    ]
    assert found == names[:3]
    for index, name in zip(trials.test_rows, trials.test_names):
        assert rows(2, 3)[index].utt_id == name
    np.testing.assert_array_equal(trials.enrol_speakers[trials.enrol], [1, 0, 0])
    np.testing.assert_array_equal(trials.test_speakers[trials.test], [1, 1, 0])


def test_list_that_contradicts_the_manifest():
    with pytest.raises(InputError, match="1 s000/u0.wav s001/u0.wav: the speakers are s000 and s001"):
        from_list(rows(2, 2), [(1, "s000/u0.wav", "s001/u0.wav")])


def test_list_of_other_utterances():
    with pytest.raises(InputError, match="none of its 1 trials"):
        from_list(rows(2, 2), [(1, "x/u0.wav", "x/u1.wav")])


def of_parts(parts):
    """Rows of speakers of the test split: {speaker: the part of each utterance, by first letter}."""
    names = {"t": "train", "v": "validation", "p": "test"}
    return [
        replace(row, utt_id=f"{speaker}/{i}", speaker=speaker, part=names[part])
        for speaker, own in parts.items()
        for i, part in enumerate(own)
        for row in rows(1, 1)
    ]


def test_superb_si_enrols_from_train_and_probes_with_test():
    parts = {"a": "pvtpt", "b": "ttttp", "c": "tppp", "d": "tttv"}
    found = of_parts(parts)
    outside = [replace(row, split="finetune", speaker="e", utt_id=f"e{row.utt_id}") for row in found[:5]]
    ordered = evaluated_rows([*outside, *found], "superb-si", 2)
    trials = all_pairs(ordered, 2)
    assert trials.enrol_names == ("a", "b")  # c lacks a second utterance of train, d one of test
    enrolled = [[ordered[index].utt_id for index in own] for own in trials.enrol_rows]
    assert enrolled == [["a/2", "a/4"], ["b/0", "b/1"]]
    assert trials.test_names == ("a/0", "a/3", "b/4") and trials.targets.sum() == 3 and len(trials) == 6
    assert evaluated_rows([*outside, *found], "pairs", 2) == found
    with pytest.raises(InputError, match="evaluate.protocol: superb-si: 1 test speakers have 3 utterances of the"):
        evaluated_rows(found, "superb-si", 3)
