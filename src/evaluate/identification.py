"""Figures of identification: by size of gallery, open-set and closed-set, and by rank."""

import numpy as np

from src.evaluate import bootstrap, open_set
from src.evaluate.result import Result
from src.evaluate.test_set import Test


def figures(
    test: Test,
    group: str,
    result: Result,
    probes: tuple[np.ndarray, np.ndarray],
    drawn: np.ndarray,
    counts: np.ndarray,
    reference: Result | None = None,
) -> dict:
    """`cmc`, {rank: {rank, share, share_ci {low, high}}}, how many probes of a group of speakers are identified within a rank,
    and, where `result` has the scores, `galleries`, {size: {size, top1, top1_ci, fnir, fnir_ci}} (see `open_set`), of
    `searches`, so many probes.

    probes: int [probes] twice, each one's column of `drawn` [resamples, columns], how often it counts, and of `counts`
    [resamples, speakers], the resamples. With `reference`, another model's Result that has scores too, every gallery
    has `difference`, {top1, fnir: {value, low, high}}, this model less that one. `refused`, {key: why}, has what too
    few probes leave out. Fractions; intervals at 95 %.
    """
    columns, speakers = probes
    ranks = np.array([rank for _, _, rank in result.ranks[group]])
    enrolled, tested = test.identified(group)
    cmc, galleries = {}, {}  # not lists, which DVC would draw as curves
    for rank in open_set.cmc_ranks(len(enrolled)):
        share, interval = _level((ranks <= rank).astype(float), columns, drawn, counts)
        cmc[str(rank)] = {"rank": rank, "share": share, "share_ci": interval}
    if result.identification is None:
        return {"cmc": cmc}

    thinned = tested % test.search_step == 0
    tested, columns, speakers = tested[thinned], columns[thinned], speakers[thinned]
    models = [
        _searches(test, enrolled, tested, each)
        for each in (result, reference)
        if each and each.identification is not None
    ]
    refused, weights = {}, drawn.T
    if not open_set.enough(len(tested)):
        refused["fnir"] = (
            f"{len(tested):,} probes; {3 / open_set.FPIR:,.0f} are needed for an FPIR of {open_set.FPIR:g}"
        )
    for size in open_set.sizes(len(enrolled)):
        right = [open_set.top1(searched.ranks, size, len(enrolled) - 1) for searched in models]
        share, interval = _level(right[0], columns, drawn, counts)
        gallery, difference = {"size": size, "top1": share, "top1_ci": interval}, {}
        if len(models) > 1:
            changes, step = right[0] - right[1], (size - 1) / max(len(enrolled) - 1, 1)  # one more speaker is ahead
            ends = bootstrap.outcome_difference_interval(changes, speakers, step)
            difference["top1"] = bootstrap.rounded(changes.mean(), *ends)
        if not refused:
            once = np.ones((len(weights), 1))
            missed = [
                (open_set.fnir(searched, size, columns, once)[0], open_set.fnir(searched, size, columns, weights))
                for searched in models
            ]
            gallery["fnir"] = round(float(missed[0][0]), bootstrap.DIGITS)
            gallery["fnir_ci"] = bootstrap.rounded_ci(*bootstrap.rate_interval(*missed[0], counts))
            if len(models) > 1:
                change = missed[0][0] - missed[1][0]
                ends = bootstrap.difference_interval(change, missed[0][1] - missed[1][1], counts, by_pairs=True)
                difference["fnir"] = bootstrap.rounded(change, *ends)
        galleries[str(size)] = gallery | ({"difference": difference} if difference else {})
    return {"cmc": cmc, "searches": len(tested), "galleries": galleries} | ({"refused": refused} if refused else {})


def _searches(test, enrolled, tested, result):
    trials = test.identification
    right = trials.enrol_speakers[enrolled][:, None] == trials.test_speakers[tested]
    return open_set.searches(result.identification[np.ix_(enrolled, tested // test.search_step)], right.argmax(axis=0))


def _level(right, columns, drawn, counts):
    values = bootstrap.identification(right, columns, drawn)
    return round(float(right.mean()), bootstrap.DIGITS), bootstrap.rounded_ci(
        *bootstrap.interval(right.mean(), values, counts)
    )
