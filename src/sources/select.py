"""Which speakers and utterances are taken, and which split a speaker goes to."""

import zlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence

import numpy as np

from src.sources.candidate import Candidate

EVALUATION = ("test", "validation")  # unseen speakers go to these, in this order
FEWEST = 2  # speakers in a split: with one there are no non-target trials


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The names in an order that depends on nothing but the names and the seed."""
    return [str(name) for name in np.random.default_rng([seed, 1]).permutation(sorted(names))]


def utterance_order(candidates: Sequence[Candidate], seed: int) -> list[Candidate]:
    """One speaker's candidates in the order to try them: the largest batch first, shuffled within each."""
    speaker = candidates[0].speaker.encode()
    order = np.random.default_rng([seed, 2, zlib.crc32(speaker)]).permutation(len(candidates))
    sizes = Counter(candidate.batch for candidate in candidates)
    ranks = {batch: rank for rank, (batch, _) in enumerate(sizes.most_common())}
    return [candidates[i] for i in sorted(order, key=lambda i: ranks[candidates[i].batch])]


def allot(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """{name: whole number} in the ratio of `weights`, each at least FEWEST, adding up to `count`."""
    total = sum(weights.values())
    ideal = {name: count * weight / total for name, weight in weights.items()}
    given = {name: max(FEWEST, int(share)) for name, share in ideal.items()}
    while (excess := sum(given.values()) - count) != 0:
        if excess > 0:
            reducible = [name for name in given if given[name] > FEWEST]
            given[max(reducible, key=lambda name: given[name] - ideal[name])] -= 1
        else:
            given[max(given, key=lambda name: ideal[name] - given[name])] += 1
    return given


def assign(speakers: Sequence[str], seen: Container[str], weights: Mapping[str, float]) -> dict[str, str]:
    """{speaker: split}; `speakers` in the order of `shuffled`, `weights` the splits' shares.

    The evaluation splits hold unseen speakers only, as long as there are enough for FEWEST in each: they
    shrink, in proportion, when there are fewer than their shares. Below that they take seen ones too.
    Raises ValueError when there are fewer than FEWEST speakers a split.
    """
    if len(speakers) < FEWEST * len(weights):
        raise ValueError(f"{len(speakers)} speakers are too few for {len(weights)} splits")
    unseen = [speaker for speaker in speakers if speaker not in seen]
    queue = unseen + [speaker for speaker in speakers if speaker in seen]
    evaluation = {name: weights[name] for name in EVALUATION if name in weights}
    others = {name: weight for name, weight in weights.items() if name not in evaluation}
    counts = allot(len(queue), weights)
    if FEWEST * len(evaluation) <= len(unseen) < sum(counts[name] for name in evaluation):
        counts = allot(len(unseen), evaluation) | allot(len(queue) - len(unseen), others)
    splits = [name for name in (*evaluation, *others) for _ in range(counts[name])]
    return dict(zip(queue, splits, strict=True))
