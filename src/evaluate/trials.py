"""Protocols: which enrolment is compared with which test utterance."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.data import manifest
from src.data.manifest import Row
from src.runtime.errors import InputError

MOST = 1_000_000  # trials of all pairs, where nothing else is asked for


@dataclass(frozen=True)
class Sides:
    """Enrolments and test utterances of some manifest rows.

    speakers: names of all the rows' speakers, sorted. Of each enrolment: its name, the rows averaged into it, as many for
    each, its speaker (index into `speakers`). Of each test utterance: its row, its utt_id, its speaker.
    """

    speakers: tuple[str, ...]
    enrol_names: tuple[str, ...]
    enrol_rows: tuple[tuple[int, ...], ...]
    enrol_speakers: np.ndarray
    test_names: tuple[str, ...]
    test_rows: np.ndarray
    test_speakers: np.ndarray


@dataclass(frozen=True)
class Trials(Sides):
    """Trials between the two sides: of each trial its enrolment and its test utterance, int [n], indexes into those.

    sampled_from: how many trials there are of which these are a sample; None where these are all.
    """

    enrol: np.ndarray
    test: np.ndarray
    sampled_from: int | None = None

    def __len__(self) -> int:
        return len(self.enrol)

    @property
    def targets(self) -> np.ndarray:
        """bool [n]: whether enrolment and test utterance are of one speaker."""
        return self.enrol_speakers[self.enrol] == self.test_speakers[self.test]


@dataclass(frozen=True)
class Subset:
    """Some trials, as the bootstrap over their speakers needs them.

    chosen: bool [n], which of the trials these are; targets: bool [k]; enrol, test: int [k], of each trial, and probes:
    int [p], of each identification, the number of its speaker among the `speakers` that occur in any of them.
    """

    chosen: np.ndarray
    targets: np.ndarray
    enrol: np.ndarray
    test: np.ndarray
    probes: np.ndarray
    speakers: int


def subset(trials: Trials, chosen: np.ndarray, probes: Sequence[str] = ()) -> Subset:
    """The trials where `chosen`, bool [n], is true. probes: the speaker of each identification that counts with them."""
    sides = trials.enrol_speakers[trials.enrol[chosen]], trials.test_speakers[trials.test[chosen]]
    numbers = {speaker: number for number, speaker in enumerate(trials.speakers)}
    identified = np.array([numbers[speaker] for speaker in probes], dtype=int)
    used, columns = np.unique(np.concatenate([*sides, identified]), return_inverse=True)
    enrol, test, identified = np.split(columns, np.cumsum([len(side) for side in sides]))
    return Subset(chosen, trials.targets[chosen], enrol, test, identified, len(used))


def within(trials: Trials, speakers: np.ndarray) -> np.ndarray:
    """bool [n]: the trials of which both speakers are of a group, bool [speakers]."""
    return speakers[trials.enrol_speakers[trials.enrol]] & speakers[trials.test_speakers[trials.test]]


def evaluated_rows(rows: Sequence[Row], protocol: str, enrolments: int) -> list[Row]:
    """The rows of the test split in the order in which `all_pairs` enrols speakers as the protocol says.

    `pairs`: as they are. `superb-si`: of each speaker, the first `enrolments` rows of the data set's own train
    split, then all of its own test split, so that these alone are probes (speaker identification of SUPERB,
    Yang et al., Interspeech 2021, whose speakers are the same in its splits; here, those of the test split).
    Speakers without that many are left out. Raises InputError when fewer than two remain.
    """
    rows = manifest.select(rows, "test")
    if protocol == "pairs":
        return rows
    enrolled, probes = defaultdict(list), defaultdict(list)
    for row in rows:
        if row.part == manifest.TEST_PART:
            probes[row.speaker].append(row)
        elif row.part == manifest.ENROL_PART and len(enrolled[row.speaker]) < enrolments:
            enrolled[row.speaker].append(row)
    enough = [speaker for speaker in probes if len(enrolled[speaker]) == enrolments]
    if len(enough) < 2:
        raise InputError(
            f"evaluate.protocol: {protocol}: {len(enough)} test speakers have {enrolments} utterances of the data "
            f"set's split {manifest.ENROL_PART} and one of {manifest.TEST_PART}; two are needed"
        )
    return [row for speaker in enough for row in (*enrolled[speaker], *probes[speaker])]


def all_sides(rows: Sequence[Row], enrolments: int) -> Sides:
    """Every speaker's enrolment, and every remaining utterance as a test utterance.

    rows: manifest rows. A speaker is enrolled with their first `enrolments` rows; speakers with no more than
    these are left out. An enrolment is named by its speaker, or by its utterance when there is just one.
    Raises InputError when fewer than two speakers remain.
    """
    by_speaker = defaultdict(list)
    for index, row in enumerate(rows):
        by_speaker[row.speaker].append(index)
    enough = {speaker: own for speaker, own in by_speaker.items() if len(own) > enrolments}
    if len(enough) < 2:
        raise InputError(
            f"evaluate.enrolments: {enrolments}: of {len(by_speaker)} speakers {len(enough)} have more utterances "
            "than that; two are needed"
        )
    enrolled = [
        (rows[own[0]].utt_id if enrolments == 1 else speaker, tuple(own[:enrolments]))
        for speaker, own in enough.items()
    ]
    return _sides(rows, enrolled, [index for own in enough.values() for index in own[enrolments:]])


def all_pairs(rows: Sequence[Row], enrolments: int, most: int | None = None, seed: int = 0) -> Trials:
    """Every enrolment of `all_sides` against every test utterance, enrolment by enrolment; a sample where they are more
    than `most` (None: always all).

    The sample has all target trials, or of more than half of `most` that many, and of the non-target trials as many as
    are left, each with the same chance. EER, DCF and Cllr weigh target and non-target trials separately, so that the
    shares of the two in the sample don't bias them. The sample depends on nothing but the numbers of trials and the seed.
    """
    sides = all_sides(rows, enrolments)
    tests, total = len(sides.test_names), len(sides.enrol_names) * len(sides.test_names)
    if most is None or total <= most:
        return _trials(sides, *np.divmod(np.arange(total), tests))
    own = np.argsort(sides.enrol_speakers)[np.searchsorted(np.sort(sides.enrol_speakers), sides.test_speakers)]
    rng = np.random.default_rng([seed, 3])
    targets = np.arange(tests) if tests <= most // 2 else rng.choice(tests, most // 2, replace=False)
    # Non-target trial number i of a test utterance is that with enrolment i, counted without its own speaker's.
    chosen = rng.choice(total - tests, min(most - len(targets), total - tests), replace=False, shuffle=False)
    test, enrol = np.divmod(chosen, len(sides.enrol_names) - 1)
    enrol += enrol >= own[test]
    flat = np.sort(np.concatenate([own[targets] * tests + targets, enrol * tests + test]))
    return _trials(sides, *np.divmod(flat, tests), total)


def from_list(rows, trial_list) -> Trials:
    """The trials of a list whose utterances are both among the rows, in the list's order.

    trial_list: (target 1 or 0, utt_id of the enrolment, utt_id of the test utterance) of each trial. Raises
    InputError when a trial's label contradicts the manifest's speakers, or when nothing remains.
    """
    where = {row.utt_id: index for index, row in enumerate(rows)}
    triples = ((target, where.get(first, -1), where.get(second, -1)) for target, first, second in trial_list)
    targets, first, second = np.fromiter(triples, (np.int32, 3), len(trial_list)).T
    here = (first >= 0) & (second >= 0)
    if not here.any():
        raise InputError(f"trial list: none of its {len(trial_list)} trials has both utterances here")
    targets, first, second = targets[here], first[here], second[here]
    speakers = np.unique([row.speaker for row in rows], return_inverse=True)[1]
    wrong = np.flatnonzero((speakers[first] == speakers[second]) != targets)
    if len(wrong):
        target, *pair = (side[wrong[0]] for side in (targets, first, second))
        names, voices = (
            " ".join(rows[index].utt_id for index in pair),
            " and ".join(rows[index].speaker for index in pair),
        )
        raise InputError(f"trial list: {target} {names}: the speakers are {voices}")
    enrolled, enrol = np.unique(first, return_inverse=True)
    tests, test = np.unique(second, return_inverse=True)
    sides = _sides(rows, [(rows[index].utt_id, (int(index),)) for index in enrolled], tests)
    return _trials(sides, enrol, test)


def _trials(sides, enrol, test, sampled_from=None):
    return Trials(**vars(sides), enrol=enrol, test=test, sampled_from=sampled_from)


def _sides(rows, enrolled, tests):
    speakers = sorted({row.speaker for row in rows})
    number = {speaker: index for index, speaker in enumerate(speakers)}
    return Sides(
        speakers=tuple(speakers),
        enrol_names=tuple(name for name, _ in enrolled),
        enrol_rows=tuple(own for _, own in enrolled),
        enrol_speakers=np.array([number[rows[own[0]].speaker] for _, own in enrolled]),
        test_names=tuple(rows[index].utt_id for index in tests),
        test_rows=np.array(tests),
        test_speakers=np.array([number[rows[index].speaker] for index in tests]),
    )
