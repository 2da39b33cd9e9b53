"""From what a source offers to audio files in four splits of speakers."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from src.common.params import SPLITS
from src.data.manifest import ENROL_PART, TEST_PART, Row
from src.data.recordings import save
from src.runtime.audio import SAMPLE_RATE, SHORTEST, prepare
from src.runtime.errors import AudioError, InputError
from src.sources.select import EVALUATION, FEWEST, allot, assign, shuffled, utterance_order

AUDIO = "data/audio"


@dataclass
class Sample:
    """What was taken, and what was not and why."""

    rows: list[Row] = field(default_factory=list)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)  # utt_id, speaker, reason
    dropped: dict[str, str] = field(default_factory=dict)  # speaker: how many utterances are usable
    repeats: list[tuple[str, str]] = field(default_factory=list)  # of a trial list: utt_id, its twin before

    def reasons(self):
        """How many utterances were skipped for each kind of reason, the most frequent first."""
        return Counter(reason.split(":")[0] for _, _, reason in self.skipped).most_common()


@dataclass(frozen=True)
class _Quota:
    """Of a speaker's candidates the first `limit` that are usable, `needed` at least; `part`: what they all are of."""

    candidates: list
    limit: int
    needed: int
    part: str = ""


def sample(candidates, data, *, seed, enrolments, seen, folder, official=False, tested=()):
    """Choose speakers and utterances, and write their audio to `folder` as NNNNN.flac.

    candidates: what may be chosen from. data: the parameters' section. enrolments: a speaker must have more
    usable utterances than that. seen: names of speakers that the encoder was trained on. official: take of
    every speaker `enrolments` utterances of ENROL_PART, and all others of TEST_PART. tested: candidates of a
    trial list, all of which make the test split, uncut; none of `candidates` may be of their speakers.

    Of the same audio twice, found by the samples that would be written, a speaker keeps one; under two speakers
    neither keeps it nor has another in its place, but for what a trial list names.

    Returns a Sample whose rows are ordered by split, speaker and utt_id; their paths are those that the
    audio has once `folder` is renamed to AUDIO. Raises InputError when too few speakers can be used.
    """
    weights = data.splits.model_dump()
    wanted = data.speakers
    taken, others = {}, {}
    writer = _Writer(folder, others)
    if tested:
        wanted = max(FEWEST * (len(weights) - 1), round(wanted * (1 - weights.pop("test"))))
        bounds = {"min_seconds": SHORTEST, "max_seconds": None}
        for speaker, own in tqdm(_by_speaker(tested).items(), "trial list", unit="speaker", disable=None):
            if utterances := writer.take(speaker, [_Quota(own, len(own), 1)], bounds, repeats=True):
                taken[speaker] = utterances
        if len(taken) < FEWEST:
            raise _too_few(len(taken), 1, FEWEST, writer.sample)
    split = dict.fromkeys(taken, "test")
    bounds = {"min_seconds": data.min_seconds, "max_seconds": data.max_seconds}
    needed = enrolments + 1
    limit = max(data.utterances_per_speaker, needed)
    for speaker, own in _chosen(_by_speaker(candidates), seen, wanted, weights, seed, others):
        ordered = utterance_order(own, seed)
        quotas = _by_part(ordered, limit, enrolments) if official else [_Quota(ordered, limit, needed)]
        if utterances := writer.take(speaker, quotas, bounds):
            others[speaker] = utterances
            writer.quotas[speaker] = quotas
    if len(others) < FEWEST * len(weights):
        raise _too_few(len(others), needed, FEWEST * len(weights), writer.sample)
    split |= assign(list(others), seen, weights)
    writer.sample.rows = sorted(
        (
            Row(
                candidate.utt_id,
                speaker,
                split[speaker],
                f"{AUDIO}/{file}",
                seconds,
                int(speaker in seen),
                candidate.sex,
                candidate.part,
            )
            for speaker, utterances in (taken | others).items()
            for candidate, file, seconds in utterances
        ),
        key=lambda row: (SPLITS.index(row.split), row.speaker, row.utt_id),
    )
    return writer.sample


def _by_part(candidates, limit, enrolments):
    wanted = ((ENROL_PART, enrolments, enrolments), (TEST_PART, limit - enrolments, 1))
    return [
        _Quota([candidate for candidate in candidates if candidate.part == part], most, needed, part)
        for part, most, needed in wanted
    ]


def _by_speaker(candidates):
    speakers = defaultdict(list)
    for candidate in candidates:
        speakers[candidate.speaker].append(candidate)
    return dict(sorted(speakers.items()))


def _chosen(speakers, seen, wanted, weights, seed, accepted):
    """(speaker, candidates), in the order to try them, until `accepted`, which the caller fills, has enough.

    Unseen speakers come first, up to what the evaluation splits take; then seen ones; then the others.
    """
    order = shuffled(speakers, seed)
    unseen = iter([speaker for speaker in order if speaker not in seen])
    familiar = iter([speaker for speaker in order if speaker in seen])
    count = min(wanted, len(order))
    # With too few, all are tried, so that the error can say how many could be used.
    counts = allot(count, weights) if count >= FEWEST * len(weights) else {}
    evaluation = sum(number for name, number in counts.items() if name in EVALUATION)
    with tqdm(total=count, desc="speakers", unit="speaker", disable=None) as bar:
        for pool, until in ((unseen, evaluation), (familiar, count), (unseen, count)):
            while len(accepted) < until and (speaker := next(pool, None)) is not None:
                yield speaker, speakers[speaker]
                bar.update(len(accepted) - bar.n)


class _Writer:
    """Writes utterances as they are found usable, and notes those that are not.

    accepted: {speaker: utterances} of those chosen so far, from which `_withdraw` takes.
    """

    def __init__(self, folder, accepted):
        self.folder, self.sample, self.written = Path(folder), Sample(), 0
        self.accepted, self.quotas = accepted, {}
        self.known = {}  # audio written before: utt_id

    def take(self, speaker, quotas, bounds, repeats=False):
        """[(candidate, file name, seconds)] of one speaker, quota by quota.

        With fewer than needed of one nothing is kept, and the list is empty. With `repeats` the same audio may
        come again.
        """
        taken, hashes = [], {}
        for quota in quotas:
            before = len(taken)
            if len(quota.candidates) >= quota.needed:
                self._fill(quota, taken, hashes, bounds, repeats)
            if len(taken) - before < quota.needed:
                self._drop(speaker, quota, quotas, taken)
                return []
        self.written += len(taken)
        self.known |= hashes
        return taken

    def _fill(self, quota, taken, hashes, bounds, repeats):
        """Add to `taken` and `hashes` what the quota allows."""
        full = len(taken) + quota.limit
        for candidate in quota.candidates:
            if len(taken) == full:
                break
            try:
                pcm = prepare(*candidate.read(), **bounds)
            except AudioError as error:
                self._skip(candidate, str(error))
                continue
            digest = hashlib.sha256(pcm).digest()
            before = hashes.get(digest) or self.known.get(digest)
            if before and not repeats:
                self._skip(candidate, f"duplicate: the same audio as {before}")
                if digest not in hashes:
                    self._withdraw(before, candidate.utt_id)
                continue
            if before:
                self.sample.repeats.append((candidate.utt_id, before))
            hashes[digest] = before or candidate.utt_id
            file = f"{self.written + len(taken):05d}.flac"
            save(self.folder / file, pcm)
            taken.append((candidate, file, len(pcm) / SAMPLE_RATE))

    def _withdraw(self, utt_id, twin):
        """Take back what another speaker has too: whose voice it is cannot be told, so neither keeps it.

        A speaker who is left with too few goes as well. What a trial list names stays, being given.
        """
        for speaker, own in self.accepted.items():
            disputed = [utterance for utterance in own if utterance[0].utt_id == utt_id]
            if not disputed:
                continue
            ((candidate, file, _),) = disputed
            (self.folder / file).unlink()
            self._skip(candidate, f"duplicate: the same audio as {twin}")
            own.remove(disputed[0])
            for quota in self.quotas[speaker]:
                left = sum(utterance[0] in quota.candidates for utterance in own)
                if left < quota.needed:
                    for candidate, file, _ in own:
                        (self.folder / file).unlink()
                        self._skip(candidate, f"too few of this speaker: {left} left, {quota.needed} are needed")
                    self.sample.dropped[speaker] = f"{left} left"
                    del self.accepted[speaker]
                    break
            return

    def _drop(self, speaker, lacking, quotas, taken):
        candidates = [candidate for quota in quotas for candidate in quota.candidates]
        for _, file, _ in taken:
            (self.folder / file).unlink()
        already = {utt_id for utt_id, own, _ in self.sample.skipped if own == speaker}
        usable = sum(candidate.utt_id not in already for candidate in lacking.candidates)
        where = f" in {lacking.part}" if lacking.part else ""
        self.sample.dropped[speaker] = f"{usable} usable{where}"
        for candidate in candidates:
            if candidate.utt_id not in already:
                self._skip(candidate, f"too few of this speaker{where}: {usable}, {lacking.needed} are needed")

    def _skip(self, candidate, reason):
        self.sample.skipped.append((candidate.utt_id, candidate.speaker, reason))


def _too_few(found, needed, least, sample):
    message = (
        f"{found} speakers with at least {needed} usable utterances were found; {least} are needed, "
        f"{FEWEST} for each split"
    )
    if sample.reasons():
        message += "; skipped: " + ", ".join(f"{kind} ({count})" for kind, count in sample.reasons())
    return InputError(message)
