from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.sources.candidate import Candidate
from src.sources.select import FEWEST, allot, assign, shuffled, utterance_order

WEIGHTS = {"calibration": 0.1, "finetune": 0.3, "validation": 0.2, "test": 0.4}
shares = st.lists(st.integers(1, 50), min_size=4, max_size=4).map(lambda parts: dict(zip(WEIGHTS, parts)))


@given(st.integers(8, 500), shares)
def test_allotment_is_exact_and_near_the_ratio(count, weights):
    given_ = allot(count, weights)
    assert sum(given_.values()) == count and min(given_.values()) >= FEWEST
    ideal = {name: count * weight / sum(weights.values()) for name, weight in weights.items()}
    if min(ideal.values()) >= FEWEST:
        assert all(abs(given_[name] - ideal[name]) <= 1 for name in weights)


@given(st.integers(0, 60), st.integers(0, 60), shares)
def test_evaluation_holds_unseen_speakers_only_when_there_are_enough(unseen, seen, weights):
    speakers = [f"u{i}" for i in range(unseen)] + [f"s{i}" for i in range(seen)]
    if len(speakers) < 8:
        with pytest.raises(ValueError):
            assign(speakers, {name for name in speakers if name[0] == "s"}, weights)
        return
    split = assign(speakers, {name for name in speakers if name[0] == "s"}, weights)
    assert set(split) == set(speakers)
    assert min(Counter(split.values())[name] for name in weights) >= FEWEST
    in_evaluation = {name[0] for name, where in split.items() if where in ("test", "validation")}
    if unseen >= 4:
        assert in_evaluation == {"u"}
    elif unseen == 0:
        assert in_evaluation == {"s"}
    else:  # too few to make even the smallest evaluation: all of them are in the test
        assert {split[f"u{i}"] for i in range(min(unseen, FEWEST))} == {"test"}


def test_evaluation_shrinks_in_proportion_to_the_unseen_speakers():
    speakers = [f"s{i}" for i in range(40)] + [f"u{i}" for i in range(30)]
    split = assign(speakers, {f"s{i}" for i in range(40)}, WEIGHTS)
    assert Counter(split.values()) == {"test": 20, "validation": 10, "calibration": 10, "finetune": 30}


def test_order_depends_on_names_and_seed_only():
    names = [f"n{i}" for i in range(50)]
    assert shuffled(names, 3) == shuffled(reversed(names), 3) != shuffled(names, 4)
    assert sorted(shuffled(names, 3)) == sorted(names)


def test_utterances_of_the_largest_batch_come_first():
    candidates = [Candidate(f"u{i}", "s", None, batch=i % 3 == 0) for i in range(20)]
    order = utterance_order(candidates, 0)
    assert [c.batch for c in order] == [0] * 13 + [1] * 7
    assert [c.utt_id for c in order[:13]] != sorted(c.utt_id for c in order[:13])
    assert order == utterance_order(candidates, 0) != utterance_order(candidates, 1)
