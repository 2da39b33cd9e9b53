"""From what a source offers to audio files in four splits of speakers.

Utterances are read and written speaker by speaker (`_read`); of those of all speakers `_settle` says which stay and
which do not; splits are assigned last.
"""

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from src.common.params import SPLITS, Data
from src.data.manifest import ENROL_PART, TEST_PART, Row
from src.data.recordings import save
from src.runtime.audio import SAMPLE_RATE, SHORTEST, channels_differ, prepare
from src.runtime.errors import AudioError, InputError, count
from src.sources.candidate import Candidate, Offer, Skipped
from src.sources.same_utterance import SAME, fingerprint, similarity
from src.sources.select import EVALUATION, FEWEST, allot, assign, shuffled, utterance_order

AUDIO = "data/audio"
_COMPARED = 100  # utterances of a speaker, with each other


@dataclass
class Sample:
    """What was taken, and what was not and why."""

    rows: list[Row]
    skipped: list[Skipped]
    dropped: dict[str, str]  # speaker: how many utterances are usable
    repeats: list[tuple[str, str]]  # of a trial list: utt_id, its twin before
    differing: list[str]  # utt_ids of averaged recordings whose channels differ


@dataclass(frozen=True)
class _Utterance:
    """A usable utterance, written to `file` of the folder."""

    candidate: Candidate
    file: str
    seconds: float
    digest: bytes  # of the samples
    channels_differ: bool


@dataclass
class _Quota:
    """Of a speaker's candidates the first `limit` that are usable, `needed` at least; `part`: what they all are of."""

    candidates: list[Candidate]
    limit: int
    needed: int
    part: str = ""
    usable: list[_Utterance] = field(default_factory=list)


@dataclass(frozen=True)
class _Speaker:
    """What was read of a speaker, quota by quota up to the first that lacks some."""

    name: str
    quotas: list[_Quota]
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def usable(self) -> list[_Utterance]:
        return [utterance for quota in self.quotas for utterance in quota.usable]

    def lacking(self, lost: Container[str] = ()) -> tuple[_Quota, int] | None:
        """The first quota that is not met without the utterances `lost`, and how many are usable of it."""
        for quota in self.quotas:
            usable = sum(utterance.candidate.utt_id not in lost for utterance in quota.usable)
            if usable < quota.needed:
                return quota, usable
        return None


def sample(
    offer: Offer, data: Data, *, seed: int, enrolments: int, seen: set[str], folder: Path, official: bool = False
) -> Sample:
    """Choose speakers and utterances, and write their audio to `folder`, which is empty, as NNNNN.flac.

    data: the parameters' section. enrolments: a speaker must have more usable utterances than that. seen: names of
    speakers that the encoder was trained on. official: take of every speaker `enrolments` utterances of ENROL_PART, and
    all others of TEST_PART. What a trial list names makes the test split, uncut.

    Of the same audio twice, found by the samples that would be written, a speaker keeps one; under two speakers
    neither keeps it nor has another in its place, but for what a trial list names. Of one utterance from two
    microphones or in two encodings, of equal length, a speaker keeps one as well.

    Returns a Sample whose rows are ordered by split, speaker and utt_id; their paths are those that the
    audio has once `folder` is renamed to AUDIO. Raises InputError when too few speakers can be used.
    """
    weights, wanted, numbers = data.splits.model_dump(), data.speakers, itertools.count()
    test, names, repeats, skipped = {}, {}, [], list(offer.skipped)
    if offer.tested:
        wanted = max(FEWEST * (len(weights) - 1), round(wanted * (1 - weights.pop("test"))))
        bounds = {"min_seconds": SHORTEST, "max_seconds": None}
        for name, offered in tqdm(_by_speaker(offer.tested).items(), "trial list", unit="speaker", disable=None):
            speaker = _read(name, [_Quota(offered, len(offered), 1)], bounds, folder, numbers, repeats=True)
            skipped += speaker.skipped
            if speaker.usable:
                test[name] = speaker.usable
        for utterance in itertools.chain(*test.values()):
            first = names.setdefault(utterance.digest, utterance.candidate.utt_id)
            if first != utterance.candidate.utt_id:
                repeats.append((utterance.candidate.utt_id, first))
        _enough(test, 1, FEWEST, skipped)

    needed = enrolments + 1
    limit = max(data.utterances_per_speaker, needed)
    bounds = {"min_seconds": data.min_seconds, "max_seconds": data.max_seconds}
    offered, speakers = _by_speaker(offer.candidates), []
    taken, unused, dropped = {}, [], {}
    with tqdm(total=min(wanted, len(offered)), desc="speakers", unit="speaker", disable=None) as bar:
        for queue, until in _queues(offered, seen, wanted, weights, seed):
            # As many as are missing, and again as many as turned out to be unusable.
            while batch := list(itertools.islice(queue, max(0, until - len(taken)))):
                for name in batch:
                    ordered = utterance_order(offered[name], seed)
                    quotas = _by_part(ordered, limit, enrolments) if official else [_Quota(ordered, limit, needed)]
                    speakers.append(_read(name, quotas, bounds, folder, numbers))
                    bar.update()
                taken, unused, dropped = _settle(speakers, names)
                bar.update(len(taken) - bar.n)
    skipped += unused
    _enough(taken, needed, FEWEST * len(weights), skipped)
    split = dict.fromkeys(test, "test") | assign(list(taken), seen, weights)
    kept = list(itertools.chain(*test.values(), *taken.values()))
    for path in {*folder.iterdir()} - {folder / utterance.file for utterance in kept}:
        path.unlink()
    rows = [_row(utterance, split, seen) for utterance in kept]
    rows.sort(key=lambda row: (SPLITS.index(row.split), row.speaker, row.utt_id))
    differing = sorted(utterance.candidate.utt_id for utterance in kept if utterance.channels_differ)
    return Sample(rows, skipped, dropped, repeats, differing)


def _row(utterance, split, seen):
    candidate = utterance.candidate
    speaker, path = candidate.speaker, f"{AUDIO}/{utterance.file}"
    about = split[speaker], path, utterance.seconds, int(speaker in seen), candidate.sex, candidate.part
    return Row(candidate.utt_id, speaker, *about)


def _by_part(candidates, limit, enrolments):
    parts = ((ENROL_PART, enrolments, enrolments), (TEST_PART, limit - enrolments, 1))
    return [_Quota([c for c in candidates if c.part == part], most, needed, part) for part, most, needed in parts]


def _by_speaker(candidates):
    speakers = defaultdict(list)
    for candidate in candidates:
        speakers[candidate.speaker].append(candidate)
    return dict(sorted(speakers.items()))


def _queues(speakers, seen, wanted, weights, seed) -> list[tuple[Iterator[str], int]]:
    """[(names in the order to try them, how many speakers are to be taken by the end of it)].

    Unseen speakers come first, up to what the evaluation splits take; then seen ones; then the others.
    """
    order = shuffled(speakers, seed)
    unseen = iter([speaker for speaker in order if speaker not in seen])
    familiar = iter([speaker for speaker in order if speaker in seen])
    most = min(wanted, len(order))
    # With too few, all are tried, so that the error can say how many could be used.
    counts = allot(most, weights) if most >= FEWEST * len(weights) else {}
    evaluation = sum(number for name, number in counts.items() if name in EVALUATION)
    return [(unseen, evaluation), (familiar, most), (unseen, most)]


def _read(name, quotas, bounds, folder, numbers, repeats=False):
    """A _Speaker; each usable utterance is written to `folder` under the next of `numbers`.

    With `repeats` the same audio may come again.
    """
    speaker, digests, prints = _Speaker(name, quotas), {}, {}
    for quota in quotas:
        for candidate in quota.candidates:
            if len(quota.usable) == quota.limit:
                break
            try:
                samples, rate = candidate.read()
                pcm = prepare(samples, rate, **bounds)
                digest = hashlib.sha256(pcm).digest()
                if not repeats:
                    _refuse_duplicate(candidate, pcm, digest, digests, prints)
            except AudioError as error:
                speaker.skipped.append((candidate.utt_id, name, str(error)))
                continue
            file = f"{next(numbers):05d}.flac"
            save(folder / file, pcm)
            differ = channels_differ(samples, rate)
            quota.usable.append(_Utterance(candidate, file, len(pcm) / SAMPLE_RATE, digest, differ))
        if len(quota.usable) < quota.needed:
            break
    return speaker


def _refuse_duplicate(candidate, pcm, digest, digests, prints):
    """Add an utterance to its speaker's, {digest: utt_id} and, of the first, {utt_id: fingerprint}.

    Raises AudioError where the speaker has it already.
    """
    if digest in digests:
        raise AudioError(f"duplicate: the same audio as {digests[digest]}")
    if len(prints) < _COMPARED:
        phases = fingerprint(pcm)
        for utt_id, before in prints.items():
            if similarity(phases, before) >= SAME:
                other = "in another encoding or from another microphone"
                raise AudioError(f"duplicate: the same utterance as {utt_id}, {other}")
        prints[candidate.utt_id] = phases
    digests[digest] = candidate.utt_id


def _settle(speakers, reserved):
    """(utterances that stay, by speaker; what is skipped; how many are usable of each speaker who goes).

    Not that which a trial list has, {digest: utt_id} in `reserved`, nor what two speakers have: whose voice it is cannot
    be told. A speaker who is left with too few goes as well.
    """
    owners = defaultdict(list, {digest: [utt_id] for digest, utt_id in reserved.items()})
    for speaker in speakers:
        if not speaker.lacking():
            for utterance in speaker.usable:
                owners[utterance.digest].append(utterance.candidate.utt_id)
    shared = [utt_ids for utt_ids in owners.values() if len(utt_ids) > 1]
    twins = {utt_id: next(other for other in utt_ids if other != utt_id) for utt_ids in shared for utt_id in utt_ids}
    taken, skipped, dropped = {}, [], {}
    for speaker in speakers:
        lost = {u.candidate.utt_id: twins[u.candidate.utt_id] for u in speaker.usable if u.candidate.utt_id in twins}
        unusable = [(utt_id, speaker.name, f"duplicate: the same audio as {twin}") for utt_id, twin in lost.items()]
        skipped += speaker.skipped + unusable
        if not (lacking := speaker.lacking(lost)):
            taken[speaker.name] = [u for u in speaker.usable if u.candidate.utt_id not in lost]
            continue
        quota, usable = lacking
        where = f" in {quota.part}" if quota.part else ""
        dropped[speaker.name] = f"{usable} usable{where}"
        reason = f"too few of this speaker{where}: {usable}, {quota.needed} are needed"
        named = {utt_id for utt_id, *_ in speaker.skipped} | lost.keys()
        others = [c for quota in speaker.quotas for c in quota.candidates if c.utt_id not in named]
        skipped += [(candidate.utt_id, speaker.name, reason) for candidate in others]
    return taken, skipped, dropped


def kinds(skipped: Iterable[Skipped]) -> str:
    """How many utterances were skipped for each kind of reason, the most frequent first."""
    counts = Counter(reason.split(":")[0] for *_, reason in skipped)
    return ", ".join(f"{kind} ({number})" for kind, number in counts.most_common())


def _enough(speakers, needed, least, skipped):
    if len(speakers) < least:
        found = f"{count(len(speakers), 'speaker')} with at least {count(needed, 'usable utterance')} found"
        why = f"; skipped: {kinds(skipped)}" if skipped else ""
        raise InputError(f"{found}; {least} are needed, {FEWEST} for each split{why}")
