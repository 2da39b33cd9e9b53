"""HEAD"""

from collections import defaultdict

import numpy as np
import pytest

from src.evaluate import accuracy, result, test_set
from tests.evaluate import simulation


def intervals(figures):
    """(name, value, {low, high}) of every figure and of every difference, as `accuracy.figures` gives them."""
    for key in (*accuracy.KEYS, *accuracy.MORE):
        if key in figures:
            yield key, figures[key], figures[f"{key}_ci"]
            yield f"{key} difference", figures["difference"][key]["value"], figures["difference"][key]
    for gallery in figures["identification"]["galleries"]:
        for key in ("top1", "fnir"):
            if key in gallery:
                yield (key, gallery["size"]), gallery[key], gallery[f"{key}_ci"]
                difference = gallery["difference"][key]
                yield (f"{key} difference", gallery["size"]), difference["value"], difference


def coverage(seed, speakers, utterances, noise, sets, resamples, truth_sets=1000, **kind):
    """For every figure, and its difference between two models: share of sets whose interval holds the truth, and
    the mean width of the intervals over what a normal distribution with the estimates' spread would need. kind: of the
    embeddings."""
    rng = np.random.default_rng(seed)
    test = test_set.make_test(simulation.rows(speakers, utterances, sessions=kind.get("sessions", 0)), 1)
    fitted = simulation.calibrations(rng, 24, utterances, noise, **kind)
    populations = max(1, truth_sets // 300)
    first, second = simulation.truth(rng, test, fitted, speakers, utterances, noise, populations, truth_sets, **kind)
    true = {}
    for key in second:
        name = (f"{key[0]} difference", key[1]) if isinstance(key, tuple) else f"{key} difference"
        true |= {key: second[key], name: second[key] - first[key]}
    held, measured = defaultdict(list), defaultdict(list)
    for number in range(sets):
        both = simulation.embeddings(rng, speakers, utterances, noise, **kind)
        models = [result.score_test(model, test, calibrated) for model, calibrated in zip(both, fitted)]
        figures = accuracy.figures(test, models[1], resamples, number, reference=models[0])
        for name, value, ends in intervals(figures):
            if name in true:
                held[name].append(ends["low"] - 1e-6 <= true[name] <= ends["high"] + 1e-6)
                measured[name].append((value, ends["high"] - ends["low"]))
    return {
        name: (
            np.mean(held[name]),
            np.mean([width for _, width in measured[name]])
            / (2 * 1.96 * np.std([value for value, _ in measured[name]])),
        )
        for name in held
    }


def test_intervals_hold_the_truth_quick():
    """A count squared for target trials, or no weights for pairs, fails on the width."""
    found = coverage(0, 30, 6, 0.5, sets=60, resamples=200, truth_sets=300)
    for name, (share, width) in found.items():
        assert share >= 0.88, name
        assert 0.7 < width < 1.4, name
    assert 0.935 < np.mean([share for share, _ in found.values()]) < 0.985


@pytest.mark.slow
@pytest.mark.parametrize(
    ("speakers", "utterances", "noise", "kind"),
    [
        (30, 8, 0.55, {}),
        (48, 10, 0.4, {}),
        (80, 6, 0.7, {}),
        (48, 10, 0.4, {"damage": 0.05}),
        (48, 10, 0.4, {"sessions": 3}),
    ],
)
def test_intervals_hold_the_truth(speakers, utterances, noise, kind):
    found = coverage(1, speakers, utterances, noise, sets=600, resamples=500, truth_sets=2000, **kind)
    for name, (share, width) in found.items():
        print(f"{speakers} speakers, {utterances} utterances, {kind}, {name}: {share:.1%}, width {width:.2f}")
    # A point of chance beyond 93 and 97 %; a difference between models much alike may be held more often.
    for name, (share, _) in found.items():
        alike = "damage" in kind and "difference" in str(name)
        assert 0.92 <= share <= (1 if alike else 0.98), name
