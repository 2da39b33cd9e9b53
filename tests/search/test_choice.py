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


def test_the_cheapest_trial_that_is_not_inferior_is_chosen():
    assert choice.select(ROWS)["trial"] == 1
    assert choice.select([{**trial, "noninferior": 0} for trial in ROWS]) is None
    assert choice.select([{**trial, "noninferior": int(trial["trial"] == 0)} for trial in ROWS])["trial"] == 0
    # Of equal GMACs the smaller file, of equal files the better objective.
    ties = [row(0, 0.1, 3.0, 7.0), row(1, 0.3, 3.0, 6.0)]
    assert choice.select(ties)["trial"] == 1
    assert choice.select([*ties, row(2, 0.2, 3.0, 6.0)])["trial"] == 2
    assert choice.select([row(0, 0.1, 3.0, 7.0), row(1, 0.1, 4.0, 6.0)], "size")["trial"] == 1
    fast, small = row(0, 0.1, 4.0, 7.0) | {"share": 0.1}, row(1, 0.1, 3.0, 6.0) | {"share": 0.2}
    assert choice.select([small, fast], "time")["trial"] == 0
