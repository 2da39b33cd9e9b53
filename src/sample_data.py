"""Stage `sample_data`: speech from the chosen source as 16 kHz audio in four splits of speakers."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.sample_data", alone=True)

import contextlib
import os
import re
from pathlib import Path

from src.common import params
from src.common.files import temporary_folder, write_csv
from src.common.params import SPLITS
from src.data import manifest
from src.encoder.labels import training_speakers
from src.runtime.errors import InputError, count
from src.sources import folder, synthetic
from src.sources.candidate import Offer
from src.sources.sampling import AUDIO, kinds, sample

SKIPPED = "data/skipped.csv"
_SHOWN = 20  # skipped utterances on the terminal; the file has all


def main() -> None:
    config = params.load()
    seen = training_speakers(config.encoder.source, config.encoder.revision)
    with _partial() as partial:
        offer = _offer(config, partial / "fetched")
        for note in offer.notes:
            print(note)
        result = sample(
            offer,
            config.data,
            seed=config.seed,
            enrolments=config.evaluate.enrolments,
            seen=seen,
            folder=partial / "audio",
            official=config.evaluate.protocol == "superb-si",
        )
        manifest.write(result.rows, partial / "manifest.csv")
        write_csv(partial / "skipped.csv", ("utt_id", "speaker", "reason"), result.skipped)
        _publish(partial)
    _summarise(result, offer.trials)


def _offer(config, spool):
    data = config.data
    if data.source == "folder":
        return folder.listing(data.path, data.max_seconds, data.level, data.trials, config.evaluate.max_missing_trials)
    if data.source == "hub":
        from src.sources import hub_dataset

        repository = data.repo, data.config, data.revision
        return Offer(hub_dataset.candidates(*repository, data.max_seconds, spool, data.speaker_column))
    # More than are taken, at no cost: what is not read is not made, and a short one has a substitute.
    return Offer(synthetic.candidates(data.speakers, 2 * data.utterances_per_speaker, config.seed))


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
        speakers, unseen = {row.speaker for row in rows}, {row.speaker for row in rows if not row.seen}
        minutes = sum(row.seconds for row in rows) / 60
        print(f"{split:<12}{len(speakers):>9}{len(unseen):>9}{len(rows):>12}{minutes:>9.1f}")
    if trials:
        usable = {row.utt_id for row in result.rows}
        scored = sum(usable.issuperset(names) for _, *names in trials)
        print(f"trial list: {scored} of {len(trials)} trials are of usable recordings")
    for utt_id, same in result.repeats:
        print(f"trial list: {utt_id} is the same audio as {same}")
    if result.differing:
        recordings = f"{count(len(result.differing), 'recording')}, such as {result.differing[0]}"
        print(f"note: channels differ in {recordings}, and were averaged; split what has a speaker on each channel")
    for utt_id, _, reason in result.skipped[:_SHOWN]:
        print(f"skipped {utt_id}: {reason}")
    if len(result.skipped) > _SHOWN:
        print(f"... and {len(result.skipped) - _SHOWN} more in {SKIPPED}")
    print(f"skipped utterances: {len(result.skipped)}" + (f" - {kinds(result.skipped)}" if result.skipped else ""))
    if result.dropped:
        names = ", ".join(f"{speaker} ({usable})" for speaker, usable in result.dropped.items())
        print(f"dropped speakers: {len(result.dropped)} - {names}")
    for split in ("validation", "test"):
        if any(row.seen for row in manifest.select(result.rows, split)):
            print(f"note: the encoder was trained on speakers of the {split} split: too few are unseen")
