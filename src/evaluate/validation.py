"""What a model does on validation speakers, and whether it is shown to lose less than a margin; the same on those of the
test, which confirms that or does not.

All that a split holds is used: every utterance is enrolled in turn, and every other one is a probe. A figure is the
mean of jackknife pseudo-values, one a speaker (Miller, "The Jackknife: A Review", Biometrika 61, 1974), which say how
it moves with that speaker, enrolled and tested. The difference of two models is then a paired t-test over speakers.
Both figures are smoothed, which tells models apart on fewer speakers. Nothing is drawn at random.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtrit

from src.common import layout
from src.common.files import write_csv
from src.common.params import Margins
from src.data.manifest import Row
from src.data.tables import read_csv
from src.evaluate import normalise
from src.evaluate.test_set import ALL, Test
from src.evaluate.trials import Trials, all_pairs
from src.runtime.errors import InputError

Verdict = Literal["passes", "undecided", "inferior"]
METRICS = {"eer": "eer", "top1": "top1_accuracy"}  # key of a Loss and of a margin: name among accuracy keys
COLUMNS = ("speaker", "utterances", *METRICS)
INTERVAL = 0.975  # of either end of a 95 % interval
# With what confidence each of the two INT8 models has to pass, so that one whose true loss is as large as a margin is
# chosen in at most 5 % of cases. Nominal: where errors are few, the bound of the EER is missed more often than Student's t
# says, with 24 speakers of 10 utterances and an EER of 2 % in 1.2 % of cases (tests/evaluate/test_choice_by_simulation.py).
LEVEL = 0.995
# How often the test is to confirm a network that a search takes; the confidence that this is, with many speakers.
ASSURANCE = 0.95
ASSURED = float(ndtr(ndtri(INTERVAL) + math.sqrt(2) * ndtri(ASSURANCE)))
POWER = 0.8  # how often a model that loses nothing passes on as many speakers as `Loss.speakers_for` gives
_MOST_TRIALS = 1 << 22  # where more would be needed, fewer utterances are enrolled in turn
_NARROWEST = 1e-9  # kernel, where all scores are the same
_DIGITS, _DECIMALS = 6, 9


@dataclass(frozen=True)
class Speech:
    """Speech of a split: rows of the manifest; how many utterances a speaker is enrolled with; and among how many
    speakers, its own included, an utterance is identified."""

    rows: Sequence[Row]
    enrolments: int
    gallery: int

    def by_speaker(self) -> dict[str, list[int]]:
        """{speaker: indexes of their rows}, by name. Speakers with no more utterances than are enrolled are left out."""
        indexes = {speaker: [] for speaker in sorted({row.speaker for row in self.rows})}
        for index, row in enumerate(self.rows):
            indexes[row.speaker].append(index)
        return {speaker: rows for speaker, rows in indexes.items() if len(rows) > self.enrolments}

    def rounds(self) -> Iterator[tuple[np.ndarray, Trials]]:
        """(order of the rows, all pairs of them in that order): in each round every speaker's rows are rotated by one
        more, so that others are enrolled."""
        by_speaker = self.by_speaker()
        most = max(1, _MOST_TRIALS // (len(by_speaker) * sum(map(len, by_speaker.values()))))
        for start in range(min(most, max(map(len, by_speaker.values())))):
            order = np.concatenate([np.roll(indexes, -start) for indexes in by_speaker.values()])
            yield order, all_pairs([self.rows[index] for index in order], self.enrolments)


@dataclass(frozen=True)
class Figures:
    """Of every speaker, by name: how many utterances there are, and the pseudo-values, float64 [speakers], of the EER
    and of the share of utterances that are identified (top-1)."""

    speakers: tuple[str, ...]
    utterances: np.ndarray
    eer: np.ndarray
    top1: np.ndarray


@dataclass(frozen=True)
class Loss:
    """By how much a model is worse than fp32, a fraction: the difference, above 0 where it is worse; its standard error
    and the degrees of freedom of that; and how many speakers and utterances it is from."""

    value: float
    error: float
    freedom: float
    speakers: int
    utterances: int

    def high(self, level: float = INTERVAL) -> float:
        """The upper confidence bound of the true loss.

        By Student's t. Where no speaker tells the models apart the standard error is 0 and shows nothing; that many
        utterances without a loss then still allow that a few are lost among all (the rule of three: Hanley and
        Lippman-Hand, "If Nothing Goes Wrong, Is Everything All Right?", JAMA 249, 1983).
        """
        if self.error == 0:
            return self.value + 1 - (1 - level) ** (1 / self.utterances)
        return self.value + float(stdtrit(self.freedom, level)) * self.error

    def low(self, level: float = INTERVAL) -> float:
        """The lower confidence bound of the true loss."""
        return 2 * self.value - self.high(level)

    def confirmed_high(self) -> float:
        """What the upper end of a test's 95 % interval stays below in ASSURANCE of cases, on as many such speakers: its
        difference and this one scatter about the same true loss."""
        if self.error == 0:
            return self.high(LEVEL)
        quantiles = stdtrit(self.freedom, INTERVAL) + math.sqrt(2) * stdtrit(self.freedom, ASSURANCE)
        return self.value + float(quantiles) * self.error

    def speakers_for(self, margin: float, level: float = LEVEL) -> int:
        """On how many such speakers a model that loses nothing is shown to lose less than the margin, with POWER."""
        if self.error == 0:
            return math.ceil(math.log(1 - level) / math.log(1 - margin) * self.speakers / self.utterances)
        return math.ceil(self.speakers * ((ndtri(level) + ndtri(POWER)) * self.error / margin) ** 2)


def speech(rows: Sequence[Row], enrolments: int, test: Test) -> Speech:
    """The Speech of validation rows: one identifies among as many speakers as `test` has (the unseen ones, where it has
    both kinds), or as there are here but one."""
    mask = test.groups.get("unseen", test.groups[ALL])
    enrolled = int(np.count_nonzero(mask[test.identification.enrol_speakers]))
    whole = Speech(rows, enrolments, enrolled)
    return replace(whole, gallery=max(1, min(enrolled, len(whole.by_speaker()) - 1)))


def confirming(test: Test, enrolments: int) -> Speech | None:
    """The Speech of the speakers that the verdict on a test is about; None where they are so many that not even once each
    can be enrolled within _MOST_TRIALS: such a test's own trials tell models apart."""
    mask = test.groups.get("unseen", test.groups[ALL])
    speakers = {speaker for speaker, judged in zip(test.identification.speakers, mask, strict=True) if judged}
    rows = [row for row in test.rows if row.speaker in speakers]
    return speech(rows, enrolments, test) if len(speakers) * len(rows) <= _MOST_TRIALS else None


def measure(
    embeddings: np.ndarray, speech: Speech, cohort: np.ndarray | None = None, top: int | None = None
) -> Figures:
    """The Figures of a model from its embeddings [rows, dim] of the speech; cohort, top: as for `normalise.s_norm`."""
    grids, probes, by_speaker = [], [], speech.by_speaker()
    for order, trials in speech.rounds():
        grid = normalise.whole_grid(np.asarray(embeddings)[order], trials, cohort, top)
        grids.append(grid[np.argsort(trials.enrol_speakers)])
        probes.append(trials.test_speakers)
    grid, right = np.concatenate(grids, axis=1), np.concatenate(probes)
    enrolled, tested = np.repeat(np.arange(len(grid)), len(right)), np.tile(right, len(grid))
    utterances = np.array([len(rows) for rows in by_speaker.values()])
    return Figures(
        tuple(by_speaker),
        utterances,
        _eer(grid.ravel(), enrolled, tested, utterances),
        _top1(grid, right, speech.gallery, utterances),
    )


def _top1(grid, right, gallery, utterances):
    """Pseudo-values of top-1 among `gallery` of the speakers, over all choices of the others.

    grid [speakers, probes]: scores of everyone's enrolment; right, int [probes]: whose the probes are. A probe beaten by k of
    the n other speakers is identified among gallery - 1 of them, drawn without replacement, with a hypergeometric
    probability: a U-statistic, whose jackknife is that of Arvesen ("Jackknifing U-Statistics", Annals of Mathematical
    Statistics 40, 1969). As in `_eer` it is beaten as far as a normal kernel about its own score lies below the other's.
    """
    size, probes = grid.shape
    columns = np.arange(probes)
    ahead = grid - grid[right, columns]
    ahead[right, columns] = -np.inf
    others = np.argsort(-ahead, axis=0)[:-1]  # from the most alike down
    ahead = np.take_along_axis(ahead, others, axis=0)
    beaten = ndtr(ahead / _kernel(ahead[0], utterances))
    lost, lost_without = (-np.diff(_identified(size - left_out, gallery - 1))[:, None] for left_out in (1, 2))
    identified = 1 - (lost * beaten).sum(axis=0).mean()
    # Without one of the others those behind it move up.
    before, behind = lost_without * beaten[:-1], lost_without * beaten[1:]
    missed = np.pad(np.cumsum(before, axis=0), ((1, 0), (0, 0)))
    missed[:-1] += np.cumsum(behind[::-1], axis=0)[::-1]
    heard = probes - np.bincount(right, minlength=size)
    without = 1 - np.bincount(others.ravel(), missed.ravel(), size) / heard
    return identified + (size - 1) * (without.mean() - without)


def _kernel(values, utterances):
    """The width of a normal kernel that is best for the distribution function of normal scores (Azzalini, Biometrika 68,
    1981), as many as there are utterances: their trials are not independent."""
    return max((4 / utterances.sum()) ** (1 / 3) * values.std(), _NARROWEST)


def _identified(others, drawn):
    """Chance, [others + 1], that none of those `beaten` is among the `drawn` of the others."""
    beaten = np.arange(others)
    return np.append(1, np.cumprod(np.maximum(1 - drawn / np.maximum(others - beaten, 1), 0)))


def _eer(values, enrol, test, utterances):
    """Pseudo-values of the EER by its derivatives with respect to the speakers' weights.

    A trial is an error as far as a normal kernel about its score lies on the wrong side of the threshold: rates of such a
    ROC vary less than counts (Lloyd and Yong, "Kernel Estimators of the ROC Curve Are Better than Empirical", Statistics
    and Probability Letters 44, 1999). Where both rates cross, the EER moves by w dM + (1 - w) dF, with dM and dF what they
    move by there, and w = F' / (F' + M') by their slopes.
    """
    size, targets = len(utterances), enrol == test
    widths = np.where(targets, *(_kernel(values[mask], utterances) for mask in (targets, ~targets)))
    share = np.where(targets, 1 / targets.sum(), -1 / (~targets).sum())  # of a trial in its rate

    def errors(threshold):
        return ndtr((threshold - values) * np.sign(share) / widths)

    ends = values.min() - widths.max(), values.max() + widths.max()
    threshold = brentq(lambda threshold: errors(threshold) @ share, *ends)
    wrong = errors(threshold)
    slopes = np.exp(-(((threshold - values) / widths) ** 2) / 2) / widths * share
    rising, falling = slopes[targets].sum(), -slopes[~targets].sum()
    weight = falling / (falling + rising) if falling + rising else 0.5
    pseudo = np.full(size, wrong[targets].mean())
    for mask, part in ((targets, weight), (~targets, 1 - weight)):
        sides = (enrol[mask],) if mask is targets else (enrol[mask], test[mask])
        trials = sum(np.bincount(side, minlength=size) for side in sides)
        missed = sum(np.bincount(side, wrong[mask], size) for side in sides)
        pseudo += part * size * (missed - wrong[mask].mean() * trials) / mask.sum()
    return pseudo


def losses(figures: Figures, reference: Figures) -> dict[str, Loss]:
    """{eer, top1: Loss} of a model against fp32, both on the same speech."""
    return {
        "eer": _loss(figures.eer - reference.eer, figures.utterances),
        "top1": _loss(reference.top1 - figures.top1, figures.utterances),
    }


def _loss(differences, utterances):
    """Degrees of freedom: fewer than speakers - 1 where few speakers decide the variance (Satterthwaite, "An Approximate
    Distribution of Estimates of Variance Components", Biometrics Bulletin 2, 1946)."""
    size, value = len(differences), differences.mean()
    squares = (differences - value) ** 2
    total = squares.sum()
    if total < 1e-18:
        return Loss(float(value), 0.0, size - 1.0, size, int(utterances.sum()))
    excess = (squares**2).sum() / total**2 - 1 / size
    freedom = 2 / max(excess, 2 / (size - 1))
    error = math.sqrt(total / (size - 1) / size)
    return Loss(float(value), error, freedom, size, int(utterances.sum()))


def verdict(losses: dict[str, Loss], margins: Margins, level: float = LEVEL) -> Verdict:
    """Whether a model is shown to lose less than the margins in EER and in top-1, is shown to lose, or neither."""
    if all(losses[key].high(level) < getattr(margins, key) for key in METRICS):
        return "passes"
    return "inferior" if any(losses[key].low(level) > 0 for key in METRICS) else "undecided"


def assured(losses: dict[str, Loss], margins: Margins, level: float) -> bool:
    """Whether a model passes at a confidence, and a test is to be expected to confirm that (`Loss.confirmed_high`)."""
    confirmed = all(losses[key].confirmed_high() < getattr(margins, key) for key in METRICS)
    return confirmed and verdict(losses, margins, level) == "passes"


def trial_level(trials: int) -> float:
    """The confidence that each of so many trials has to pass with, so that over all of them it is LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / trials


def speakers_needed(losses: dict[str, Loss], margins: Margins, level: float = LEVEL) -> int:
    """`Loss.speakers_for` the margin that takes most."""
    return max(losses[key].speakers_for(getattr(margins, key), level) for key in METRICS)


def summary(
    speech: Speech, figures: Figures, compared: dict[str, Loss] | None = None, margins: Margins | None = None
) -> dict:
    """For a stage's details: speakers, utterances, the size of the gallery, how many of the speakers the encoder was
    trained on, `eer` and `top1_accuracy`; of a model that is compared (see `losses`) also `difference` {key: {value,
    low, high}}, less fp32's, with 95 % intervals, and with margins its `verdict` and the `speakers_needed` for them."""
    seen = {row.speaker for row in speech.rows if row.seen}
    found: dict = {
        "speakers": len(figures.speakers),
        "utterances": int(figures.utterances.sum()),
        "seen_speakers": len(seen.intersection(figures.speakers)),
        "gallery": speech.gallery,
        **{name: round(float(getattr(figures, key).mean()), _DIGITS) for key, name in METRICS.items()},
    }
    if compared:
        found["difference"] = {name: difference(key, compared[key]) for key, name in METRICS.items()}
    if compared and margins:
        found["verdict"] = verdict(compared, margins)
        found["speakers_needed"] = speakers_needed(compared, margins)
    return found


def difference(key: str, loss: Loss) -> dict[str, float]:
    """{value, low, high}: a metric of a model less fp32's, with its 95 % interval. key: one of METRICS."""
    ends = loss.value, loss.low(), loss.high()
    value, low, high = ends if key == "eer" else (-loss.value, -loss.high(), -loss.low())
    return {name: round(end, _DIGITS) for name, end in zip(("value", "low", "high"), (value, low, high))}


def write(name: str, split: str, figures: Figures) -> None:
    """Write the Figures of the model `name` on a split: their means are its EER and top-1, the mean and the
    standard error of two models' differences those of the difference."""
    columns = (figures.speakers, figures.utterances, figures.eer, figures.top1)
    rows = ((*row[:2], *(f"{value:.{_DECIMALS}f}" for value in row[2:])) for row in zip(*columns))
    write_csv(layout.judged(name, split), COLUMNS, rows)


def read(name: str, split: str, speech: Speech) -> Figures:
    """What `write` wrote. Raises InputError where the file is missing, damaged or of other speech."""
    path = layout.judged(name, split)
    remedy = f"run the stage {layout.STAGES[name]}"
    rows = read_csv(path, COLUMNS, _parse, remedy=remedy)
    present = [(speaker, len(indexes)) for speaker, indexes in speech.by_speaker().items()]
    if [row[:2] for row in rows] != present:
        raise InputError(f"{path}: not of the present split {split}; {remedy} again")
    speakers, *columns = zip(*rows)
    return Figures(speakers, *map(np.array, columns))


def _parse(row):
    return row["speaker"], int(row["utterances"]), *(float(row[name]) for name in COLUMNS[2:])
