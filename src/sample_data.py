"""Stage `sample_data`: speech from the chosen source as 16 kHz audio in four splits of speakers."""

import contextlib
import os
import shutil
from collections import defaultdict
from pathlib import Path

from src.common import params
from src.common.command import running
from src.common.files import write_csv
from src.common.params import SPLITS
from src.data import manifest
from src.data.trial_list import read_trial_list
from src.encoder.labels import training_speakers
from src.runtime.errors import InputError
from src.sources import folder, synthetic
from src.sources.sampling import AUDIO, sample

SKIPPED = "data/skipped.csv"
_PARTIAL = Path("data/.partial")
_SHOWN = 20  # skipped utterances on the terminal; the file has all


def main():
    config = params.load()
    seen = training_speakers(config.encoder.source, config.encoder.revision)
    with _partial() as partial:
        candidates, tested = _candidates(config, partial)
        result = sample(
            candidates,
            config.data,
            seed=config.seed,
            enrolments=config.evaluate.enrolments,
            seen=seen,
            folder=partial / "audio",
            official=config.evaluate.protocol == "superb-si",
            tested=tested,
        )
        manifest.write(result.rows, partial / "manifest.csv")
        write_csv(partial / "skipped.csv", ("utt_id", "speaker", "reason"), result.skipped)
        _publish(partial)
    _summarise(result)


def _candidates(config, partial):
    """What may be sampled, and what a trial list names (empty without one)."""
    data = config.data
    if data.source == "synthetic":
        # More than are taken, at no cost: what is not read is not made, and a short one has a substitute.
        return synthetic.candidates(data.speakers, 2 * data.utterances_per_speaker, config.seed), ()
    if data.source == "hub":
        from src.sources import hub_dataset

        spool = partial / "fetched"
        repository = data.repo, data.config, data.revision
        return hub_dataset.candidates(*repository, data.max_seconds, spool, data.speaker_column), ()
    found = folder.candidates(data.path, data.max_seconds)
    if not data.trials:
        return found, ()
    trials = read_trial_list(data.trials, data.path)
    tested = folder.named(data.path, sorted({name for _, *names in trials for name in names}))
    speakers = {candidate.speaker for candidate in tested}
    return [candidate for candidate in found if candidate.speaker not in speakers], tested


@contextlib.contextmanager
def _partial():
    """A folder beside the outputs, with audio/ and fetched/ in it, that is gone afterwards."""
    shutil.rmtree(_PARTIAL, ignore_errors=True)
    try:
        for name in ("audio", "fetched"):
            (_PARTIAL / name).mkdir(parents=True)
        yield _PARTIAL
    except OSError as error:
        raise InputError(f"data: cannot be written: {error}") from None
    finally:
        shutil.rmtree(_PARTIAL, ignore_errors=True)


def _publish(partial):
    """Rename to the final names. The manifest goes first and comes last: it never names other audio."""
    Path(manifest.PATH).unlink(missing_ok=True)
    shutil.rmtree(AUDIO, ignore_errors=True)
    os.replace(partial / "audio", AUDIO)
    os.replace(partial / "skipped.csv", SKIPPED)
    os.replace(partial / "manifest.csv", manifest.PATH)


def _summarise(result):
    print(f"{'split':<12}{'speakers':>9}{'unseen':>9}{'utterances':>12}{'minutes':>9}")
    for split in SPLITS:
        rows = manifest.select(result.rows, split)
        seen = {row.speaker: row.seen for row in rows}
        minutes = sum(row.seconds for row in rows) / 60
        unseen = sum(not known for known in seen.values())
        print(f"{split:<12}{len(seen):>9}{unseen:>9}{len(rows):>12}{minutes:>9.1f}")
    for utt_id, same in result.repeats:
        print(f"trial list: {utt_id} is the same audio as {same}")
    for utt_id, _, reason in result.skipped[:_SHOWN]:
        print(f"skipped {utt_id}: {reason}")
    if len(result.skipped) > _SHOWN:
        print(f"... and {len(result.skipped) - _SHOWN} more in {SKIPPED}")
    kinds = ", ".join(f"{kind} ({count})" for kind, count in result.reasons())
    print(f"skipped utterances: {len(result.skipped)}{f' - {kinds}' if kinds else ''}")
    if result.dropped:
        names = ", ".join(f"{speaker} ({usable})" for speaker, usable in result.dropped.items())
        print(f"dropped speakers: {len(result.dropped)} - {names}")
    mixed = defaultdict(set)
    for row in result.rows:
        mixed[row.split].add(row.seen)
    for split in ("validation", "test"):
        if 1 in mixed[split]:
            print(f"note: the encoder was trained on speakers of the {split} split: too few are unseen")


if __name__ == "__main__":
    with running():
        main()
