"""DET curves of the models, with how sure they are."""
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from src.evaluate import bootstrap, metrics

COLUMNS = ("model", "false_alarm_rate", "miss_rate")
MOST_POINTS = 300  # of a curve
BAND_POINTS = 60
BAND_RESAMPLES = 300  # enough for a band that is drawn, not quoted


@dataclass(frozen=True)
class Curve:
    """Rates as fractions, false alarms falling: float64 [points].

    `band`: false-alarm rates, and the 2.5 % and 97.5 % bounds of the miss rate there.
    """

    p_fa: np.ndarray
    p_miss: np.ndarray
    eer: float
    band: tuple


def curves(results):
    """{model: Curve} over the trials that the verdict is about."""
    trials, kept = results.test.verification, results.judged
    targets = trials.targets[kept]
    sides = trials.enrol_speakers[trials.enrol[kept]], trials.test_speakers[trials.test[kept]]
    used, columns = np.unique(np.concatenate(sides), return_inverse=True)
    resamples = min(BAND_RESAMPLES, results.params.evaluate.bootstrap)
    counts = bootstrap.resamples(len(used), resamples, results.params.seed)
    found = {}
    for name, model in results.models.items():
        scores = model.scores[kept]
        _, p_fa, p_miss = metrics.det_points(metrics.rank(scores, targets))
        band = _band(scores, targets, *np.split(columns, 2), counts)
        found[name] = Curve(*_thinned(p_fa, p_miss), model.over(results.groups[0])["eer"], band)
    return found


def _band(scores, targets, first, second, counts):
    """Where 95 % of resamples put the miss rate, at false-alarm rates evenly spread on a DET plot."""
    ranking = metrics.rank(scores, targets)
    first, second = first[ranking.order], second[ranking.order]
    lowest = 1 / max(2, np.count_nonzero(~targets))
    p_fa = norm.cdf(np.linspace(norm.ppf(lowest), norm.ppf(0.5), BAND_POINTS))
    misses = []
    for count in counts:
        weights = np.where(ranking.targets, count[first], count[first] * count[second])
        held = (np.add.reduceat(weights * own, ranking.starts) for own in (ranking.targets, ~ranking.targets))
        miss, false_alarm = metrics.error_rates(*held)
        misses.append(np.interp(p_fa, false_alarm[::-1], miss[::-1]))
    misses = np.array(misses)
    values = misses[~np.isnan(misses).any(axis=1)]
    return p_fa, *np.quantile(values, (0.025, 0.975), axis=0)


def _thinned(p_fa, p_miss):
    """At most MOST_POINTS of the points, as evenly along the curve as the probits of its rates allow."""
    if len(p_fa) <= MOST_POINTS:
        return p_fa, p_miss
    lowest = min(rates[rates > 0].min() for rates in (p_fa, p_miss)) / 2
    x, y = (norm.ppf(np.clip(rates, lowest, 1 - lowest)) for rates in (p_fa, p_miss))
    along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.searchsorted(along, np.linspace(0, along[-1], MOST_POINTS - 1))
    kept = np.unique(np.append(kept, len(along) - 1))
    return p_fa[kept], p_miss[kept]


def rows(found):
    """The curves as rows of COLUMNS."""
    return [
        (name, f"{p_fa:.6f}", f"{p_miss:.6f}")
        for name, curve in found.items() for p_fa, p_miss in zip(curve.p_fa, curve.p_miss)
    ]
