import pytest

from src.common.params import Margins
from src.evaluate.validation import Loss
from src.search import frontier, search

MARGINS = Margins(eer=0.01, top1=0.02)


def point(share, value, error=0.001):
    loss = Loss(value, error, 30.0, 31, 310).__dict__
    return {"share": share, "losses": {"eer": loss, "top1": loss}}


POINTS = [point(1.0, 0.0), point(0.7, 0.002), point(0.5, 0.009), point(0.35, 0.001), point(0.25, 0.05)]


def test_only_those_before_the_first_that_does_not_pass_pass():
    assert frontier.passing(POINTS, MARGINS, 0.99) == [True, True, False, False, False]
    assert frontier.knee(POINTS, MARGINS, 0.99) == 0.7


def test_the_knee_where_none_passes_is_the_smallest_that_loses_less_as_measured():
    noisy = [point(share, 0.001, 0.05) for share in (1.0, 0.7)] + [point(0.5, 0.2, 0.05)]
    assert frontier.knee(noisy, MARGINS, 0.99) == 0.7
    assert frontier.knee([point(1.0, 0.5)], MARGINS, 0.99) == 1.0


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ([], (0.5, 0.5)),
        ([(0.5, True)], (0.95 * 0.5 * 0.4, 0.95 * 0.5)),
        ([(0.5, True), (0.3, False)], (0.3, 0.95 * 0.5)),
        ([(0.5, True), (0.3, False), (0.4, True)], (0.3, 0.95 * 0.4)),
        ([(0.5, True), (0.3, True), (0.4, False)], (0.95 * 0.3 * 0.4, 0.95 * 0.3)),
        ([(0.5, False)], (0.5, 1.0)),
        ([(0.3, False), (0.5, False)], (0.5, 1.0)),
    ],
)
def test_trials_go_where_it_is_undecided(trained, expected):
    assert search.bounds(trained, 0.5) == pytest.approx(expected)
