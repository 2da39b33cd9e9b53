"""Stage `sample_data`: speech from the chosen source as 16 kHz audio in four splits of speakers."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.sample_data", alone=True)

import contextlib
import os
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from src.common import params
from src.common.files import temporary_folder, write_csv
from src.common.params import SPLITS
from src.data import manifest
from src.data.trial_list import Trial, left_out, locate, read_trial_list
from src.encoder.labels import training_speakers
from src.runtime.errors import InputError
from src.sources import folder, synthetic
from src.sources.candidate import Candidate
from src.sources.sampling import AUDIO, kinds, sample

SKIPPED = "data/skipped.csv"
_SHOWN = 20  # skipped utterances on the terminal; the file has all


def main():
    config = params.load()
    seen = {
        unicodedata.normalize("NFC", name) for name in training_speakers(config.encoder.source, config.encoder.revision)
    }
    with _partial() as partial:
        source = _Source.of(config, partial)
        for note in source.notes:
            print(note)
        result = sample(
            source.candidates,
            config.data,
            seed=config.seed,
            enrolments=config.evaluate.enrolments,
            seen=seen,
            folder=partial / "audio",
            official=config.evaluate.protocol == "superb-si",
            tested=source.tested,
            skipped=source.skipped,
        )
        manifest.write(result.rows, partial / "manifest.csv")
        write_csv(partial / "skipped.csv", ("utt_id", "speaker", "reason"), result.skipped)
        _publish(partial)
    _summarise(result, source.trials)


@dataclass(frozen=True)
class _Source:
    """What may be sampled, what a trial list names and its trials, what cannot be used, and what is to be said."""

    candidates: list[Candidate]
    tested: list[Candidate] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, config, partial):
        data = config.data
        if data.source == "synthetic":
            # More than are taken, at no cost: what is not read is not made, and a short one has a substitute.
            return cls(synthetic.candidates(data.speakers, 2 * data.utterances_per_speaker, config.seed))
        if data.source == "hub":
            from src.sources import hub_dataset

            repository = data.repo, data.config, data.revision
            spool = partial / "fetched"
            return cls(hub_dataset.candidates(*repository, data.max_seconds, spool, data.speaker_column))
        listing = folder.listing(data.path, data.max_seconds, data.level)
        if not data.trials:
            return cls(listing.candidates, skipped=listing.skipped, notes=listing.notes)
        unusable = {name for name, *_ in listing.skipped}
        listed = {candidate.utt_id for candidate in listing.candidates}
        trials = read_trial_list(data.trials, listed | unusable, data.level)
        names = {name for _, *pair in trials for name in pair}
        absent = {name for name in names - listed if name.count("/") < data.level or not locate(data.path, name)}
        left_out(trials, names - absent, data.trials, config.evaluate.max_missing_trials)
        tested = folder.named(data.path, sorted(names - absent), listing.candidates, data.level)
        speakers = {candidate.speaker for candidate in tested}
        others = [candidate for candidate in listing.candidates if candidate.speaker not in speakers]
        skipped = [*listing.skipped, *((name, "", "no such file") for name in sorted(absent - unusable))]
        note = f"{data.trials}: {len(trials)} trials of {len(names)} recordings of {len(speakers)} speakers"
        return cls(others, tested, trials, skipped, [*listing.notes, note])


@contextlib.contextmanager
def _partial():
    """A folder beside the outputs, with audio/ and fetched/ in it, that is gone afterwards.

    Raises InputError, before anything is made, where a name of an output is taken by what this stage did not make.
    """
    for path in (manifest.PATH, SKIPPED):
        if os.path.isdir(path):
            raise InputError(f"{path}: cannot be written: it is a folder")
    if os.path.lexists(AUDIO):
        if os.path.islink(AUDIO) or not os.path.isdir(AUDIO):
            raise InputError(f"{AUDIO}: cannot be replaced: it is no folder of this stage; move it away")
        others = [name for name in os.listdir(AUDIO) if not re.fullmatch(r"\d{5,}\.flac", name)]
        if others:
            raise InputError(f"{AUDIO}: cannot be replaced: {min(others)} in it is not of this stage; move it away")
    try:
        Path(AUDIO).parent.mkdir(exist_ok=True)
        with temporary_folder(Path(AUDIO).parent) as partial:
            for name in ("audio", "fetched"):
                (partial / name).mkdir()
            yield partial
    except OSError as error:
        raise InputError(f"data: cannot be written: {error}") from None


def _publish(partial):
    """Rename to the final names. The manifest goes first and comes last: it never names other audio."""
    Path(manifest.PATH).unlink(missing_ok=True)
    if os.path.isdir(AUDIO):
        os.replace(AUDIO, partial / "replaced")
    os.replace(partial / "audio", AUDIO)
    os.replace(partial / "skipped.csv", SKIPPED)
    os.replace(partial / "manifest.csv", manifest.PATH)


def _summarise(result, trials):
    print(f"{'split':<12}{'speakers':>9}{'unseen':>9}{'utterances':>12}{'minutes':>9}")
    for split in SPLITS:
        rows = manifest.select(result.rows, split)
        seen = {row.speaker: row.seen for row in rows}
        minutes = sum(row.seconds for row in rows) / 60
        unseen = sum(not known for known in seen.values())
        print(f"{split:<12}{len(seen):>9}{unseen:>9}{len(rows):>12}{minutes:>9.1f}")
    if trials:
        usable = {row.utt_id for row in result.rows}
        scored = sum(usable.issuperset(names) for _, *names in trials)
        print(f"trial list: {scored} of {len(trials)} trials are of usable recordings")
    for utt_id, same in result.repeats:
        print(f"trial list: {utt_id} is the same audio as {same}")
    if result.differing:
        print(
            f"note: channels differ in {len(result.differing)} recordings, such as {result.differing[0]}, and were averaged: "
            "where each has a speaker of its own, split them first"
        )
    for utt_id, _, reason in result.skipped[:_SHOWN]:
        print(f"skipped {utt_id}: {reason}")
    if len(result.skipped) > _SHOWN:
        print(f"... and {len(result.skipped) - _SHOWN} more in {SKIPPED}")
    print(f"skipped utterances: {len(result.skipped)}{(result.skipped and f' - {kinds(result.skipped)}') or ''}")
    if result.dropped:
        names = ", ".join(f"{speaker} ({usable})" for speaker, usable in result.dropped.items())
        print(f"dropped speakers: {len(result.dropped)} - {names}")
    mixed = defaultdict(set)
    for row in result.rows:
        mixed[row.split].add(row.seen)
    for split in ("validation", "test"):
        if 1 in mixed[split]:
            print(f"note: the encoder was trained on speakers of the {split} split: too few are unseen")
