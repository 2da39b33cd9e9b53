import itertools

import pytest

from src.common.params import Margins
from src.evaluate.validation import Loss
from src.search import frontier, search

MARGINS = Margins(eer=0.01, top1=0.02)


def point(share, value, error=0.001):
    loss = Loss(value, error, 30.0, 31, 310).__dict__
    return {"share": share, "losses": {"eer": loss, "top1": loss}}


POINTS = [point(1.0, 0.0), point(0.7, 0.002), point(0.5, 0.009), point(0.35, 0.001), point(0.25, 0.05)]


@pytest.mark.parametrize(("quiet", "begin"), [(0, 1), (2, 1), (3, 2), (5, 4)])
def test_the_sequence_begins_above_the_smallest_size_that_should_lose_nothing(quiet, begin):
    class Foretold:
        def of_share(self, share):
            return share

        def error(self, share):
            return 0.9e-3 if share > 0.999 * frontier.RATIO**quiet else 1.1e-3

    shares = frontier.shares(Foretold())
    assert len(shares) == 12 and shares[0] == pytest.approx(frontier.RATIO**begin)
    assert all(small == pytest.approx(0.75 * large) for large, small in itertools.pairwise(shares))


def test_only_those_before_the_first_that_does_not_pass_pass():
    assert frontier.passing(POINTS, MARGINS, 0.99) == [True, True, False, False, False]


def test_the_knee_is_the_smallest_that_loses_less_as_measured():
    assert frontier.knee(POINTS, MARGINS) == 0.35
    assert frontier.knee([point(1.0, 0.5)], MARGINS) == 1.0


@pytest.mark.parametrize(
    ("trained", "untrained", "expected"),
    [
        ([], [], 0.5),
        ([], [0.7], 0.5),
        ([(0.5, True)], [], 0.95 * 0.5 * 0.4**0.5),
        ([(0.5, True), (0.3, False)], [0.7], (0.3 * 0.95 * 0.5) ** 0.5),
        ([(0.5, True), (0.3, False), (0.4, True)], [], (0.3 * 0.95 * 0.4) ** 0.5),
        ([(0.5, True), (0.3, True), (0.4, False)], [], 0.95 * 0.3 * 0.4**0.5),
        ([(0.5, False)], [0.7], (0.5 * 0.95 * 0.7) ** 0.5),
        ([(0.3, False)], [], (0.3 * 0.75) ** 0.5),
        ([(0.3, False), (0.5, False)], [], 0.5**0.5),
        ([(1.0, False)], [], 1.0),
    ],
)
def test_trials_go_where_it_is_undecided(trained, untrained, expected):
    assert search.next_share(trained, untrained, 0.5) == pytest.approx(expected)
