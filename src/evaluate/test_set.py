"""What models are evaluated on: the trials of the test split, and the speakers that scores are set in relation to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from src.common.params import Params
from src.data import manifest
from src.data.manifest import Row
from src.data.trial_list import left_out, read_trial_list
from src.evaluate import normalise, score_calibration, sessions
from src.evaluate.trials import MOST, Sides, Trials, all_pairs, all_sides, evaluated_rows, from_list, within
from src.runtime.errors import InputError

ALL = "all"
MOST_SEARCHED = 5_000_000  # scores of searches in galleries, which are sorted


@dataclass(frozen=True)
class Test:
    """What every model is evaluated on.

    rows: of the manifest, that the trials are between. verification: for EER and minDCF; identification: every
    enrolment with every test utterance, for top-1, the same object where `verification` is all of these pairs. groups:
    {"all", and "seen" and "unseen" where there are speakers of both kinds: bool [speakers]}; the trials of a group are those of which both speakers belong to it. A group in which no metric can be computed, such
    as that of one speaker, is left out. trials_missing: how many trials of a list have utterances that are not among
    the rows; None without a list. shared_speakers: how many test speakers fine-tuning hears too. sessions: of
    each row (see `sessions.of`); None where the data do not tell them.
    """

    rows: Sequence[Row]
    verification: Trials
    identification: Sides
    groups: dict[str, np.ndarray]
    trials_missing: int | None = None
    shared_speakers: int = 0
    sessions: tuple[str, ...] | None = None

    @property
    def search_step(self) -> int:
        """Of the test utterances, in order, every how many-th is searched with in galleries of a given size."""
        sides = self.identification
        return -(-len(sides.enrol_names) * len(sides.test_names) // MOST_SEARCHED)

    def identified(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """The enrolments and the test utterances of a group's identification, as indexes."""
        mask, trials = self.groups[group], self.identification
        return np.flatnonzero(mask[trials.enrol_speakers]), np.flatnonzero(mask[trials.test_speakers])

    def probes(self) -> dict[str, list[tuple[str, str]]]:
        """{group: (test utterance, speaker) of each of its identifications}."""
        trials = self.identification
        return {
            group: [(trials.test_names[i], trials.speakers[trials.test_speakers[i]]) for i in self.identified(group)[1]]
            for group in self.groups
        }


@dataclass(frozen=True)
class Setup:
    """A Test and the other speech that its scores need: `validation`, the rows and the trials that scores are
    calibrated on, and `cohort`, the rows that they are normalised with, `top` of its speakers each (None: all). Without
    normalisation, which is `none` then, the cohort is None."""

    test: Test
    validation: tuple[list[Row], Trials]
    normalisation: str
    cohort: list[Row] | None
    top: int | None


def make_test(
    rows: Sequence[Row],
    enrolments: int,
    trial_list: list[tuple[int, str, str]] | None = None,
    most: int = MOST,
    seed: int = 0,
) -> Test:
    """The trials for these rows: of a list (see `trials.from_list`), or all pairs (see `trials.all_pairs`)."""
    verification = from_list(rows, trial_list) if trial_list else all_pairs(rows, enrolments, most, seed)
    whole = not trial_list and verification.sampled_from is None
    identification: Sides = verification if whole else all_sides(rows, enrolments)
    seen = {row.speaker for row in rows if row.seen}
    unseen = np.array([speaker not in seen for speaker in identification.speakers])
    groups = {ALL: np.ones(len(unseen), dtype=bool)}
    if unseen.any() and not unseen.all():
        for group, mask in (("seen", ~unseen), ("unseen", unseen)):
            targets = verification.targets[within(verification, mask)]
            if targets.any() and not targets.all() and mask[identification.enrol_speakers].sum() > 1:
                groups[group] = mask
    missing = len(trial_list) - len(verification) if trial_list else None
    return Test(rows, verification, identification, groups, missing, sessions=sessions.of(rows))


def load(rows: Sequence[Row], params: Params) -> Test:
    """The test that the parameters ask for.

    rows: all of the manifest. Raises InputError as `shared_speakers`, `read_trial_list`, `left_out`, `evaluated_rows`
    and `make_test`.
    """
    wanted = params.evaluate
    shared = shared_speakers(rows, wanted.allow_shared_speakers)
    tested, trial_list = evaluated_rows(rows, wanted.protocol, wanted.enrolments), None
    if params.data.trials:
        names = [row.utt_id for row in tested]
        trial_list = read_trial_list(params.data.trials, names, params.data.level)
        left_out(trial_list, names, params.data.trials, wanted.max_missing_trials)
    test = make_test(tested, wanted.enrolments, trial_list, wanted.max_trials, params.seed)
    return replace(test, shared_speakers=len(shared))


def prepare(rows: Sequence[Row], params: Params) -> Setup:
    """All that an evaluation needs of the manifest. Raises InputError as `load`, `score_calibration.rows_and_trials`
    and `normalise.cohort_rows`."""
    test, wanted = load(rows, params), params.evaluate
    validation = score_calibration.rows_and_trials(rows, enrolments(params), wanted.max_trials, params.seed)
    top = wanted.cohort_top if wanted.normalisation == "as-norm" else None
    cohort = None if wanted.normalisation == "none" else normalise.cohort_rows(rows, top)
    return Setup(test, validation, wanted.normalisation, cohort, top)


def enrolments(params: Params) -> int:
    """How many utterances a validation speaker is enrolled with; a trial list's enrolments are single ones."""
    return 1 if params.data.trials else params.evaluate.enrolments


def shared_speakers(rows: Sequence[Row], allowed: bool) -> list[str]:
    """Names of the speakers of the test split that fine-tuning hears too, sorted.

    Raises InputError when there are any, unless `allowed`: a model fine-tuned on a speaker knows the voice.
    """
    shared = manifest.in_both(rows, "test", *manifest.TRAINING)
    if shared and not allowed:
        raise InputError(
            f"{manifest.PATH}: {len(shared)} test speakers are in {' or '.join(manifest.TRAINING)} too ({shared[0]}): their "
            "EER would not be that of new speakers; evaluate.allow_shared_speakers: true reports it all the same"
        )
    return shared
