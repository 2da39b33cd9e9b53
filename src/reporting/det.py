"""DET curves of the models, with 95 % bands."""

from dataclasses import dataclass

import numpy as np

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
        _, p_fa, p_miss = metrics.det_points(ranking)
        places = metrics.spread(p_miss, p_fa, MOST_POINTS)
        low, high = _band(ranking, p_fa[places], part.enrol, part.test, counts)
        eer = model.over(results.groups[0])["eer"]
        by_model[name] = Curve(p_fa[places], p_miss[places], low, high, eer)
    return by_model


def _band(ranking, p_fa, enrol, test, counts):
    """2.5 % and 97.5 % quantiles [2, points] of the resamples' miss rates where false alarms are `p_fa` [points].

    Plain percentiles, unlike the intervals of single figures: a correction that differs from one point to the
    next would make the band's edges jump, which here fall as steadily as the curve of every resample.
    """

    def misses(by_class, _costs):
        rates = zip(*(rates.T for rates in metrics.error_rates(*by_class)), strict=True)
        return [np.interp(p_fa, false_alarm[::-1], miss[::-1]) for miss, false_alarm in rates]

    by_chunk = bootstrap.on_roc(ranking, enrol, test, counts, misses)
    return np.nanquantile(np.concatenate(by_chunk), (0.025, 0.975), axis=0)


def rows(curves: dict[str, Curve]) -> list[tuple[str, ...]]:
    """The curves as rows of COLUMNS."""
    return [
        (name, *(f"{rate:.6f}" for rate in point))
        for name, curve in curves.items()
        for point in zip(curve.p_fa, curve.p_miss, curve.low, curve.high, strict=True)
    ]
