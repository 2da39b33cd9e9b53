"""What a model did on a test: embeddings, from them scores and ranks, and the files that keep these."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.common import layout
from src.common.files import atomic_write
from src.data.manifest import Row
from src.evaluate import extract, metrics, nontargets, normalise, score_calibration, scores
from src.evaluate.test_set import Setup, Test
from src.evaluate.trials import Trials
from src.runtime import calibration
from src.runtime.calibration import COHORT_FILE, Calibration, Cohort

Model = Path | str | Callable[[Sequence[Row]], np.ndarray]  # an ONNX file, or what embeds manifest rows


@dataclass(frozen=True)
class Embeddings:
    """[rows, dim] of the rows of a Setup; cohort: the models of its speakers (see `normalise.speaker_models`)."""

    test: np.ndarray
    validation: np.ndarray
    cohort: np.ndarray | None


@dataclass(frozen=True)
class Result:
    """What a model did: the score of every verification trial, its ranks, {group: (test utterance, speaker, rank of the
    right speaker)}, and how its scores become log-likelihood ratios, for Cllr. identification: the scores [enrolments,
    every `search_step`-th test utterance], None where they were not kept: no file has them where the trials are of a
    list. cohort: the file of the cohort that the scores are normalised with, None where they are not."""

    scores: np.ndarray
    ranks: dict[str, list[tuple[str, str, int]]]
    calibration: Calibration
    identification: np.ndarray | None = None
    cohort: bytes | None = None


def embed(model: Model, setup: Setup) -> Embeddings:
    """The embeddings by a model of all that an evaluation needs. Raises InputError as `extract.embed`."""

    def embedded(rows):
        return model(rows) if callable(model) else extract.embed(model, rows)

    cohort = None
    if setup.cohort is not None:
        cohort = normalise.speaker_models(embedded(setup.cohort), [row.speaker for row in setup.cohort])
    return Embeddings(embedded(setup.test.rows), embedded(setup.validation[0]), cohort)


def score(embeddings: Embeddings, setup: Setup) -> Result:
    """Scores and ranks of the test, calibrated on the validation speakers, normalised as the setup says."""
    trials, normalisation = setup.validation[1], (embeddings.cohort, setup.top)
    validation = _scores(embeddings.validation, trials, *normalisation)
    fitted = score_calibration.fit(validation, trials.targets)
    tail = nontargets.measure(embeddings.validation, setup.validation[0], len(trials.enrol_rows[0]), *normalisation)
    file, cohort = None, None
    if embeddings.cohort is not None:
        with io.BytesIO() as new:
            np.save(new, embeddings.cohort.astype(np.float32))
            file = new.getvalue()
        cohort = Cohort(COHORT_FILE, hashlib.sha256(file).hexdigest(), setup.top)
    fitted = replace(fitted, normalisation=setup.normalisation, nontargets=tail, cohort=cohort)
    return replace(score_test(embeddings.test, setup.test, fitted, *normalisation), cohort=file)


def score_test(
    embeddings: np.ndarray, test: Test, fitted: Calibration, cohort: np.ndarray | None = None, top: int | None = None
) -> Result:
    """Scores and ranks from the embeddings [rows, dim] of the test's rows.

    fitted: the calibration that goes with them; cohort, top: as for `normalise.s_norm`.
    """
    sides, ranks = test.identification, {}
    places = {group: np.zeros(len(sides.test_names), dtype=int) for group in test.groups}
    searched = np.empty((len(sides.enrol_names), -(-len(sides.test_names) // test.search_step)))
    for block, grid in normalise.grid(embeddings, sides, cohort, top):  # of all at once, memory may not hold the scores
        for group in test.groups:
            enrolled, tested = test.identified(group)
            tested = tested[(block.start <= tested) & (tested < block.stop)]
            right = sides.enrol_speakers[enrolled][:, None] == sides.test_speakers[tested]
            ranked = metrics.identification_ranks(grid[np.ix_(enrolled, tested - block.start)], right.argmax(axis=0))
            places[group][tested] = ranked
        first = -block.start % test.search_step
        columns = grid[:, first :: test.search_step]
        place = (block.start + first) // test.search_step
        searched[:, place : place + columns.shape[1]] = columns
    for group, probes in test.probes().items():
        ranked = places[group][test.identified(group)[1]].tolist()
        ranks[group] = [(*probe, place) for probe, place in zip(probes, ranked, strict=True)]
    return Result(_scores(embeddings, test.verification, cohort, top), ranks, fitted, searched)


def score_uncalibrated(embeddings: np.ndarray, test: Test) -> Result:
    """As `score_test`, of cosines, with a calibration that is fitted to these very trials: no Cllr is to be read
    off."""
    embeddings, trials = np.asarray(embeddings), test.verification
    return score_test(embeddings, test, score_calibration.fit(scores.cosine(embeddings, trials), trials.targets))


def _scores(embeddings: np.ndarray, trials: Trials, cohort: np.ndarray | None, top: int | None) -> np.ndarray:
    """Cosines of the trials; with `cohort`, normalised (see `normalise.s_norm`)."""
    cosines = scores.cosine(embeddings, trials)
    return cosines if cohort is None else normalise.s_norm(cosines, embeddings, trials, cohort, top)


def write(name: str, test: Test, result: Result) -> None:
    """Write the scores, the ranks and the calibration of the model `name`, with the cohort where there is one."""
    scores.write_scores(layout.scores(name), test.verification, result.scores)
    scores.write_ranks(layout.ranks(name), result.ranks)
    score_calibration.write(layout.calibration(name), result.calibration)
    if result.cohort:
        with atomic_write(layout.cohort(name)) as new:
            new.write_bytes(result.cohort)


def read(name: str, test: Test) -> Result:
    """What `write` wrote. Raises InputError when a file is missing or damaged, or of another test."""
    verification, trials = scores.read_scores(layout.scores(name), test.verification), test.identification
    grid = None
    if trials is test.verification:
        grid = verification.reshape(len(trials.enrol_names), len(trials.test_names))[:, :: test.search_step]
    ranks = scores.read_ranks(layout.ranks(name), test.probes())
    return Result(verification, ranks, calibration.read(layout.calibration(name)), grid)
