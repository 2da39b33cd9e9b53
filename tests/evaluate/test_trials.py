from dataclasses import replace

import numpy as np
import pytest

from src.evaluate.trials import all_pairs, evaluated_rows, from_list
from src.runtime.errors import InputError
from tests.evaluate.simulation import rows


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
