from src.search import choice


def row(trial, objective, gmacs, size, noninferior=1):
    return {"trial": trial, "objective": objective, "gmacs": gmacs, "size_mb": size, "noninferior": noninferior}


ROWS = [
    row(0, 0.1, 5.0, 9.0),
    row(1, 0.2, 3.0, 6.0),
    row(2, 0.3, 3.5, 7.0),
    row(3, 0.9, 1.0, 2.0, 0),
    row(4, 0.2, 3.0, 6.0),
]


def test_pareto_optimal_rows_are_those_that_no_other_dominates():
    assert choice.pareto_optimal(ROWS) == [True, True, False, True, True]
    # As good in all three is not better, and worse in one alone is enough to stay.
    assert choice.pareto_optimal([row(0, 1, 1, 1), row(1, 1, 1, 1)]) == [True, True]
    assert choice.pareto_optimal([row(0, 1, 1, 1), row(1, 1, 1, 2), row(2, 0.5, 1, 2)]) == [True, False, True]


def test_the_cheapest_pareto_optimal_trial_that_is_not_inferior_is_chosen():
    rows = [{**each, "front": int(optimal)} for each, optimal in zip(ROWS, choice.pareto_optimal(ROWS))]
    assert choice.select(rows)["trial"] == 1
    assert choice.select([{**each, "noninferior": 0} for each in rows]) is None
    assert choice.select([{**each, "front": int(each["trial"] == 0)} for each in rows])["trial"] == 0
    # Of equal GMACs the smaller file, of equal files the better objective.
    ties = [{**row(0, 0.1, 3.0, 7.0), "front": 1}, {**row(1, 0.3, 3.0, 6.0), "front": 1}]
    assert choice.select(ties)["trial"] == 1
    assert choice.select([*ties, {**row(2, 0.2, 3.0, 6.0), "front": 1}])["trial"] == 2


def test_noninferior_by_the_upper_ends_of_the_intervals():
    passing = {"eer_difference_high": 0.004, "top1_difference_high": 0.0}
    assert choice.noninferior(passing, 0.005)
    assert not choice.noninferior({**passing, "eer_difference_high": 0.005}, 0.005)
    assert not choice.noninferior({**passing, "top1_difference_high": -0.001}, 0.005)  # shown to fall
