"""DET curves of the models, with 95 % bands."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from src.evaluate import bootstrap, metrics
from src.evaluate.trials import subset
from src.reporting.results import Results

COLUMNS = ("model", "false_alarm_rate", "miss_rate", "miss_low", "miss_high")
MOST_POINTS = 300  # of a curve


@dataclass(frozen=True)
class Curve:
    """Rates as fractions, false alarms falling: float64 [points].

    low, high: [points], where 95 % of the resamples have the miss rate at this rate of false alarms.
    """

    p_fa: np.ndarray
    p_miss: np.ndarray
    low: np.ndarray
    high: np.ndarray
    eer: float


def curves(results: Results) -> dict[str, Curve]:
    """{model: Curve} over the trials that the verdict is about; bands from the resamples of its figures."""
    part = subset(results.test.verification, results.judged)
    counts = bootstrap.resamples(part.speakers, results.params.evaluate.bootstrap, results.params.seed)
    by_model = {}
    for name, model in results.models.items():
        ranking = metrics.rank(model.scores[part.chosen], part.targets)
        _, *rates = metrics.det_points(ranking)
        p_fa, p_miss = _thinned(*rates)
        low, high = _band(ranking, p_fa, part.enrol, part.test, counts)
        by_model[name] = Curve(p_fa, p_miss, low, high, model.over(results.groups[0])["eer"])
    return by_model


def _band(ranking, p_fa, first, second, counts):
    """2.5 % and 97.5 % quantiles [2, points] of the resamples' miss rates where false alarms are `p_fa` [points].

    Plain percentiles, unlike the intervals of single figures: a correction that differs from one point to the
    next would make the band's edges jump, which here fall as steadily as the curve of every resample.
    """
    first, second, corners = first[ranking.order], second[ranking.order], ranking.corners()
    run = ranking.runs(corners)
    (target_run, targets), (run, first, second) = (
        [side[kind] for side in sides]
        for kind, sides in ((ranking.targets, (run, first)), (~ranking.targets, (run, first, second)))
    )
    misses = []
    for count in counts:
        miss, false_alarm = metrics.error_rates(
            np.bincount(target_run, count[targets], len(corners)),
            np.bincount(run, count[first] * count[second], len(corners)),
        )
        misses.append(np.interp(p_fa, false_alarm[::-1], miss[::-1]))
    return np.nanquantile(misses, (0.025, 0.975), axis=0)


def _thinned(p_fa, p_miss):
    """At most MOST_POINTS of the points, as evenly along the curve as the probits of its rates allow."""
    if len(p_fa) <= MOST_POINTS:
        return p_fa, p_miss
    lowest = min(rates[rates > 0].min() for rates in (p_fa, p_miss)) / 2
    x, y = (ndtri(np.clip(rates, lowest, 1 - lowest)) for rates in (p_fa, p_miss))
    along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    places = np.searchsorted(along, np.linspace(0, along[-1], MOST_POINTS - 1))
    places = np.unique(np.append(places, len(along) - 1))
    return p_fa[places], p_miss[places]


def rows(curves: dict[str, Curve]) -> list[tuple[str, ...]]:
    """The curves as rows of COLUMNS."""
    return [
        (name, *(f"{rate:.6f}" for rate in point))
        for name, curve in curves.items()
        for point in zip(curve.p_fa, curve.p_miss, curve.low, curve.high, strict=True)
    ]
