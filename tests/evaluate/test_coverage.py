"""How often the 95 % intervals hold the truth.

Of 600 test sets, with 500 resamples each (so that a share is sure to about a point):

    speakers, utterances each, noise   30, 8, 0.55   48, 10, 0.4   80, 6, 0.7
    top1_accuracy                      95.7          93.7          96.2
    top1_accuracy difference           93.5          90.8          94.2
    eer                                94.7          92.5          95.5
    eer difference                     96.7          94.3          95.2
    min_dcf_0.01                       95.7          95.2          96.8
    min_dcf_0.01 difference            97.3          97.8          98.8
    min_dcf_0.05                       96.0          95.3          96.3
    min_dcf_0.05 difference            97.3          96.8          96.0
"""
import numpy as np
import pytest

from src.evaluate import accuracy
from tests.evaluate import simulation


def coverage(seed, speakers, utterances, noise, sets, resamples, truth_sets=1000):
    """For every key, and its difference between two models: share of sets whose interval holds the truth, and
    the mean width of the intervals over what a normal distribution with the estimates' spread would need."""
    rng = np.random.default_rng(seed)
    test = accuracy.make_test(simulation.rows(speakers, utterances), 1)
    fitted = simulation.calibrations(rng, 24, utterances, noise)
    first, second = simulation.truth(rng, test, fitted, speakers, utterances, noise, sets=truth_sets)
    held, found = {}, {}
    for number in range(sets):
        both = simulation.embeddings(rng, speakers, utterances, noise)
        models = [accuracy.score(own, test, calibrated) for own, calibrated in zip(both, fitted)]
        figures = accuracy.figures(test, models[1], resamples, number, reference=models[0])
        for key in accuracy.KEYS:
            ci, difference = figures[f"{key}_ci"], figures["difference"][key]
            for name, value, low, high, true in (
                (key, figures[key], ci["low"], ci["high"], second[key]),
                (f"{key} difference", difference["value"], difference["low"], difference["high"],
                 second[key] - first[key]),
            ):
                held.setdefault(name, []).append(low - 1e-6 <= true <= high + 1e-6)
                found.setdefault(name, []).append((value, high - low))
    return {
        name: (np.mean(held[name]), np.mean([width for _, width in found[name]])
               / (2 * 1.96 * np.std([value for value, _ in found[name]])))
        for name in held
    }


def test_intervals_hold_the_truth_quick():
    """Loose bounds: a count squared for target trials, or no weights for pairs, fails on the width."""
    for name, (share, width) in coverage(0, 30, 6, 0.5, sets=60, resamples=200, truth_sets=300).items():
        assert share > 0.8, name
        assert 0.7 < width < 1.6, name


@pytest.mark.slow
@pytest.mark.parametrize(("speakers", "utterances", "noise"), [(30, 8, 0.55), (48, 10, 0.4), (80, 6, 0.7)])
def test_intervals_hold_the_truth(speakers, utterances, noise):
    found = coverage(1, speakers, utterances, noise, sets=600, resamples=500, truth_sets=2000)
    for name, (share, width) in found.items():
        print(f"{speakers} speakers, {utterances} utterances, {name}: {share:.1%}, width {width:.2f}")
    for name, (share, _) in found.items():
        assert 0.89 <= share <= 0.99, name
