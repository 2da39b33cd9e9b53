"""Sessions: recordings made on one occasion, where the names of the data tell them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.data.manifest import Row
from src.evaluate import bootstrap
from src.evaluate.trials import Subset, Trials


def of(rows: Sequence[Row]) -> tuple[str, ...] | None:
    """The session of each row, or None where the data do not tell them, or no speaker has two.

    It is what lies between the speaker's folder and the file in utt_id: VoxCeleb's video, LibriSpeech's chapter.
    """
    sessions = tuple(map(_folder, rows))
    if not all(sessions) or len(set(sessions)) == len({row.speaker for row in rows}):
        return None
    return sessions


def _folder(row):
    """The folders of utt_id with the speaker's as the first; empty where the file lies in the speaker's, or elsewhere."""
    folders = f"/{row.utt_id.rpartition('/')[0]}/"
    _, speaker, below = folders.rpartition(f"/{row.speaker}/")
    return f"{row.speaker}/{below.strip('/')}" if speaker and below else ""


@dataclass(frozen=True)
class Drawn:
    """What the resamples of some trials draw: `weights`, float64 [resamples, columns], how often each. Of each trial the column of
    its sides, enrol and test, int [k], and that of each probe, probes, int [p].

    With `sessions`, sessions within the speakers, `number` of them; without, the speakers alone."""

    weights: np.ndarray
    sessions: bootstrap.Sessions | None
    enrol: np.ndarray
    test: np.ndarray
    probes: np.ndarray
    number: int


def draw(
    sessions: Sequence[str], trials: Trials, part: Subset, probe_rows: np.ndarray, counts: np.ndarray, seed: int
) -> Drawn:
    """Draw sessions within the speakers of a part of the trials (see `bootstrap.within_speakers`).

    sessions: of every row; probe_rows: int [p], the rows of the part's identifications; counts: int [resamples,
    speakers]. An enrolment of utterances of several sessions is there as often as its speaker.
    """
    number = {name: index for index, name in enumerate(sorted(set(sessions)))}
    row_units = np.array([number[name] for name in sessions])
    several = len(number)  # the first unit that is an enrolment of several sessions
    enrolments = np.array(
        [
            row_units[rows[0]] if len(set(row_units[list(rows)])) == 1 else several + index
            for index, rows in enumerate(trials.enrol_rows)
        ]
    )
    sides = enrolments[trials.enrol[part.chosen]], row_units[trials.test_rows[trials.test[part.chosen]]]
    units, first, columns = np.unique(
        np.concatenate([*sides, row_units[probe_rows]]), return_index=True, return_inverse=True
    )
    speakers = np.concatenate([part.enrol, part.test, part.probes])[first]
    drawn = bootstrap.within_speakers(counts, speakers, units >= several, seed)
    enrol, test, probes = np.split(columns, np.cumsum([len(side) for side in sides]))
    return Drawn(drawn.drawn.astype(np.float64), drawn, enrol, test, probes, int(np.count_nonzero(units < several)))


def none(part: Subset, counts: np.ndarray) -> Drawn:
    """The speakers alone; input as for `draw`."""
    return Drawn(counts.astype(np.float64), None, part.enrol, part.test, part.probes, 0)
