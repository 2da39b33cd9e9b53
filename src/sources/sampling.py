"""From what a source offers to audio files in four splits of speakers.

Utterances are read and written speaker by speaker (`_read`); of those of all speakers `_settle` says which stay and
which do not; splits are assigned last.
"""

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from src.common.params import SPLITS, Data
from src.data.manifest import ENROL_PART, TEST_PART, Row
from src.data.recordings import save
from src.runtime.audio import SAMPLE_RATE, SHORTEST, channels_differ, prepare
from src.runtime.errors import AudioError, InputError
from src.sources.candidate import Candidate
from src.sources.same_utterance import SAME, fingerprint, similarity
from src.sources.select import EVALUATION, FEWEST, allot, assign, shuffled, utterance_order

AUDIO = "data/audio"
_COMPARED = 100  # utterances of a speaker, with each other
Skipped = tuple[str, str, str]  # utt_id, speaker, reason


@dataclass
class Sample:
    """What was taken, and what was not and why."""

    rows: list[Row]
    skipped: list[Skipped]
    dropped: dict[str, str]  # speaker: how many utterances are usable
    repeats: list[tuple[str, str]]  # of a trial list: utt_id, its twin before
    differing: list[str]  # utt_ids of averaged recordings whose channels differ


@dataclass(frozen=True)
class _Quota:
    """Of a speaker's candidates the first `limit` that are usable, `needed` at least; `part`: what they all are of."""

    candidates: list[Candidate]
    limit: int
    needed: int
    part: str = ""


@dataclass(frozen=True)
class _Utterance:
    """A usable utterance, written to `file` of the folder."""

    candidate: Candidate
    file: str
    seconds: float
    digest: bytes  # of the samples
    channels_differ: bool


@dataclass(frozen=True)
class _Speaker:
    """What was read of a speaker: usable utterances by quota, up to the first that lacks some, and what is not usable."""

    name: str
    quotas: list[_Quota]
    utterances: list[list[_Utterance]]
    skipped: list[Skipped]

    def lacking(self, lost: Container[str] = ()) -> tuple[_Quota, int] | None:
        """The first quota that is not met without the utterances `lost`, and how many are usable of it."""
        for quota, usable in itertools.zip_longest(self.quotas, self.utterances):
            if usable is None:  # not read: there are too few
                return quota, len(quota.candidates)
            count = sum(utterance.candidate.utt_id not in lost for utterance in usable)
            if count < quota.needed:
                return quota, count
        return None


@dataclass(frozen=True)
class _Settled:
    taken: dict[str, list[_Utterance]]
    skipped: list[Skipped]
    dropped: dict[str, str]


def sample(
    candidates: Iterable[Candidate],
    data: Data,
    *,
    seed: int,
    enrolments: int,
    seen: set[str],
    folder: str | Path,
    official: bool = False,
    tested: Iterable[Candidate] = (),
    skipped: Iterable[Skipped] = (),
) -> Sample:
    """Choose speakers and utterances, and write their audio to `folder` as NNNNN.flac.

    candidates: what may be chosen from. data: the parameters' section. enrolments: a speaker must have more
    usable utterances than that. seen: names of speakers that the encoder was trained on. official: take of
    every speaker `enrolments` utterances of ENROL_PART, and all others of TEST_PART. tested: candidates of a
    trial list, all of which make the test split, uncut; none of `candidates` may be of their speakers. skipped: what
    the source could not offer.

    Of the same audio twice, found by the samples that would be written, a speaker keeps one; under two speakers
    neither keeps it nor has another in its place, but for what a trial list names. Of one utterance from two
    microphones or in two encodings, of equal length, a speaker keeps one as well.

    Returns a Sample whose rows are ordered by split, speaker and utt_id; their paths are those that the
    audio has once `folder` is renamed to AUDIO. Raises InputError when too few speakers can be used.
    """
    folder, weights, wanted = Path(folder), data.splits.model_dump(), data.speakers
    numbers = itertools.count()
    given, reserved, repeats = [], {}, []
    if tested:
        wanted = max(FEWEST * (len(weights) - 1), round(wanted * (1 - weights.pop("test"))))
        bounds = {"min_seconds": SHORTEST, "max_seconds": None}
        for name, named in tqdm(_by_speaker(tested).items(), "trial list", unit="speaker", disable=None):
            given.append(_read(name, [_Quota(named, len(named), 1)], bounds, folder, numbers, repeats=True))
        reserved, repeats = _first_names(given)
    result = _settle(given, {}, skipped)
    if tested and len(result.taken) < FEWEST:
        raise _too_few(len(result.taken), 1, FEWEST, result.skipped)
    test, skipped = result.taken, result.skipped

    needed = enrolments + 1
    limit = max(data.utterances_per_speaker, needed)
    bounds = {"min_seconds": data.min_seconds, "max_seconds": data.max_seconds}
    offered, others = _by_speaker(candidates), []
    result = _settle(others, reserved, skipped)
    with tqdm(total=min(wanted, len(offered)), desc="speakers", unit="speaker", disable=None) as bar:
        for names, until in _queues(offered, seen, wanted, weights, seed):
            # As many as are missing, and again as many as turned out to be unusable.
            while batch := list(itertools.islice(names, max(0, until - len(result.taken)))):
                for name in batch:
                    ordered = utterance_order(offered[name], seed)
                    quotas = _by_part(ordered, limit, enrolments) if official else [_Quota(ordered, limit, needed)]
                    others.append(_read(name, quotas, bounds, folder, numbers))
                    bar.update()
                result = _settle(others, reserved, skipped)
                bar.update(len(result.taken) - bar.n)
    if len(result.taken) < FEWEST * len(weights):
        raise _too_few(len(result.taken), needed, FEWEST * len(weights), result.skipped)
    split = dict.fromkeys(test, "test") | assign(list(result.taken), seen, weights)
    kept = [utterance for utterances in (test | result.taken).values() for utterance in utterances]
    for utterance in {u for speaker in given + others for usable in speaker.utterances for u in usable} - set(kept):
        (folder / utterance.file).unlink()
    rows = [
        Row(
            candidate.utt_id,
            candidate.speaker,
            split[candidate.speaker],
            f"{AUDIO}/{utterance.file}",
            utterance.seconds,
            int(candidate.speaker in seen),
            candidate.sex,
            candidate.part,
        )
        for utterance in kept
        for candidate in [utterance.candidate]
    ]
    rows.sort(key=lambda row: (SPLITS.index(row.split), row.speaker, row.utt_id))
    differing = sorted(utterance.candidate.utt_id for utterance in kept if utterance.channels_differ)
    return Sample(rows, result.skipped, result.dropped, repeats, differing)


def _by_part(candidates, limit, enrolments):
    parts = ((ENROL_PART, enrolments, enrolments), (TEST_PART, limit - enrolments, 1))
    return [
        _Quota([candidate for candidate in candidates if candidate.part == part], most, needed, part)
        for part, most, needed in parts
    ]


def _by_speaker(candidates):
    speakers = defaultdict(list)
    for candidate in candidates:
        speakers[candidate.speaker].append(candidate)
    return dict(sorted(speakers.items()))


def _queues(speakers, seen, wanted, weights, seed):
    """[(names in the order to try them, how many speakers are to be taken by the end of it)].

    Unseen speakers come first, up to what the evaluation splits take; then seen ones; then the others.
    """
    order = shuffled(speakers, seed)
    unseen = iter([speaker for speaker in order if speaker not in seen])
    familiar = iter([speaker for speaker in order if speaker in seen])
    count = min(wanted, len(order))
    # With too few, all are tried, so that the error can say how many could be used.
    counts = allot(count, weights) if count >= FEWEST * len(weights) else {}
    evaluation = sum(number for name, number in counts.items() if name in EVALUATION)
    return [(unseen, evaluation), (familiar, count), (unseen, count)]


def _read(name, quotas, bounds, folder, numbers, repeats=False):
    """A _Speaker; each usable utterance is written to `folder` under the next of `numbers`.

    With `repeats` the same audio may come again.
    """
    utterances, skipped, before, prints = [], [], {}, {}
    for quota in quotas:
        if len(quota.candidates) < quota.needed:
            break
        usable = []
        for candidate in quota.candidates:
            if len(usable) == quota.limit:
                break
            try:
                samples, rate = candidate.read()
                pcm = prepare(samples, rate, **bounds)
                digest = hashlib.sha256(pcm).digest()
                if digest in before and not repeats:
                    raise AudioError(f"duplicate: the same audio as {before[digest]}")
                if not repeats and len(prints) < _COMPARED:
                    _compare(pcm, candidate, prints)
            except AudioError as error:
                skipped.append((candidate.utt_id, name, str(error)))
                continue
            before[digest] = candidate.utt_id
            file = f"{next(numbers):05d}.flac"
            save(folder / file, pcm)
            usable.append(_Utterance(candidate, file, len(pcm) / SAMPLE_RATE, digest, channels_differ(samples, rate)))
        utterances.append(usable)
        if len(usable) < quota.needed:
            break
    return _Speaker(name, quotas, utterances, skipped)


def _compare(pcm, candidate, prints):
    """Add an utterance to the `prints` {utt_id: fingerprint} of its speaker. Raises AudioError where it is there."""
    phases = fingerprint(pcm)
    for utt_id, before in prints.items():
        if similarity(phases, before) >= SAME:
            raise AudioError(
                f"duplicate: the same utterance as {utt_id}, in another encoding or from another microphone"
            )
    prints[candidate.utt_id] = phases


def _first_names(speakers):
    """({digest: the first utt_id with it}, [(every later utt_id, the first)]) of the utterances of speakers."""
    names, repeats = {}, []
    for utterance in (u for speaker in speakers for usable in speaker.utterances for u in usable):
        first = names.setdefault(utterance.digest, utterance.candidate.utt_id)
        if first != utterance.candidate.utt_id:
            repeats.append((utterance.candidate.utt_id, first))
    return names, repeats


def _settle(speakers, reserved, skipped):
    """What stays of the utterances of speakers, after `skipped`.

    Not that which a trial list has, by the digests `reserved`, nor what two speakers have: whose voice it is cannot be
    told. A speaker who is left with too few goes as well.
    """
    owners = defaultdict(list)
    for speaker in speakers:
        if not speaker.lacking():
            for utterance in itertools.chain(*speaker.utterances):
                owners[utterance.digest].append(utterance.candidate.utt_id)
    twins = {
        utt_id: reserved.get(digest) or utt_ids[i - 1]
        for digest, utt_ids in owners.items()
        if digest in reserved or len(utt_ids) > 1
        for i, utt_id in enumerate(utt_ids)
    }
    taken, dropped, skipped = {}, {}, list(skipped)
    for speaker in speakers:
        usable = list(itertools.chain(*speaker.utterances))
        lost = [(u.candidate.utt_id, twins[u.candidate.utt_id]) for u in usable if u.candidate.utt_id in twins]
        unusable = speaker.skipped + [
            (utt_id, speaker.name, f"duplicate: the same audio as {twin}") for utt_id, twin in lost
        ]
        skipped += unusable
        if not (lacking := speaker.lacking(twins)):
            taken[speaker.name] = [utterance for utterance in usable if utterance.candidate.utt_id not in twins]
            continue
        quota, count = lacking
        where = f" in {quota.part}" if quota.part else ""
        dropped[speaker.name] = f"{count} usable{where}"
        reason = f"too few of this speaker{where}: {count}, {quota.needed} are needed"
        named = {utt_id for utt_id, *_ in unusable}
        candidates = itertools.chain(*(quota.candidates for quota in speaker.quotas))
        skipped += [(c.utt_id, speaker.name, reason) for c in candidates if c.utt_id not in named]
    return _Settled(taken, skipped, dropped)


def kinds(skipped: Iterable[Skipped]) -> str:
    """How many utterances were skipped for each kind of reason, the most frequent first."""
    counts = Counter(reason.split(":")[0] for *_, reason in skipped)
    return ", ".join(f"{kind} ({count})" for kind, count in counts.most_common())


def _too_few(count, needed, least, skipped):
    message = (
        f"{count} speakers with at least {needed} usable utterances were found; {least} are needed, "
        f"{FEWEST} for each split"
    )
    return InputError(message + (f"; skipped: {kinds(skipped)}" if skipped else ""))
