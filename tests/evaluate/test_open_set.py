import itertools

import numpy as np
import pytest

from src.evaluate import open_set


def scores(seed, speakers=6, probes=4, decimals=8):
    rng = np.random.default_rng(seed)
    mates = np.repeat(np.arange(speakers), probes)
    grid = rng.normal(size=(speakers, len(mates)))
    grid[mates, np.arange(len(mates))] += 1.5
    return grid.round(decimals), mates


def enumerated(grid, mates, size, fpir):
    """FNIR and top-1 by searching every probe in every gallery of the size, mated and not."""
    speakers, thresholds = range(len(grid)), np.append(np.unique(grid), np.inf)
    best, mated = [], []
    for probe, speaker in enumerate(mates):
        others = [other for other in speakers if other != speaker]
        best.append([max(grid[list(gallery), probe]) for gallery in itertools.combinations(others, size)])
        rivals = [
            max(grid[list(gallery), probe], default=-np.inf) for gallery in itertools.combinations(others, size - 1)
        ]
        mated.append([grid[speaker, probe] if grid[speaker, probe] > rival else -np.inf for rival in rivals])
    best, mated = np.array(best), np.array(mated)
    missed = min(np.mean(mated < t) for t in thresholds if np.mean(best >= t) <= fpir + 1e-12)
    return missed, np.mean(mated > -np.inf)


@pytest.mark.parametrize("decimals", [8, 0])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("fpir", [0.05, 0.201, 0.5])
def test_rates_are_the_means_over_all_galleries(size, fpir, decimals):
    grid, mates = scores(size, decimals=decimals)
    searched = open_set.searches(grid, mates)
    missed, right = enumerated(grid, mates, size, fpir)
    rates = open_set.fnir(searched, size, mates, np.ones((6, 1)), fpir)
    assert rates == pytest.approx([missed])
    assert open_set.top1(searched.ranks, size, 5).mean() == pytest.approx(right)


def test_a_resample_repeats_its_speakers_probes():
    grid, mates = scores(1, speakers=12)
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), 20)
    rates = open_set.fnir(open_set.searches(grid, mates), 4, mates, counts.T.astype(float), 0.1)
    for value, count in zip(rates, counts, strict=True):
        chosen = np.repeat(np.arange(len(mates)), count[mates])
        again = open_set.fnir(
            open_set.searches(grid[:, chosen], mates[chosen]), 4, mates[chosen], np.ones((12, 1)), 0.1
        )
        assert value == pytest.approx(again[0])


def test_no_probe_no_rate():
    grid, mates = scores(0)
    assert np.isnan(open_set.fnir(open_set.searches(grid, mates), 2, mates, np.zeros((6, 1)))).all()


def test_sizes_leave_room_for_one_who_is_not_enrolled():
    expected = {3: [2], 16: [15], 17: [10, 16], 48: [10, 47], 77: [10, 50, 76]}
    assert {speakers: open_set.sizes(speakers) for speakers in expected} == expected


def test_rule_of_three():
    assert open_set.enough(300) and not open_set.enough(299)
