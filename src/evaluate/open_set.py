"""Identification in galleries of a given size: open-set, where the speaker may not be enrolled, and closed-set.

A search compares a probe with every enrolment of a gallery. It is *mated* where the probe's speaker is in the gallery. A
search whose best score is at or above the threshold returns that enrolment's speaker. FPIR is the share of non-mated
searches that return anybody, FNIR the share of mated searches that do not return the right speaker (ISO/IEC 19795-1:2021;
Grother, Ngan and Hanaoka, "Face Recognition Vendor Test, Part 2: Identification", NIST IR 8271, 2019, with one
candidate, R = 1).

Every probe is searched once with its speaker enrolled and once without, in all galleries of the size that the other
speakers make: the rates are their exact means over these galleries, by the hypergeometric distribution, so that
nothing hangs on which speakers are drawn. Of M other speakers, a gallery of G has the one with the j-th best score as its
best with probability C(M - j, G - 1) / C(M, G).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from src.evaluate import metrics

SIZES = (10, 50, 250, 1000)  # of galleries
FPIR = 0.01
CMC_RANKS = (1, 2, 3, 5, 10, 20)
_HEADROOM = 10  # times FPIR: up to here non-mated scores are looked at, since a resample's threshold may lie lower


@dataclass(frozen=True)
class Searches:
    """Every probe's scores: mates, float64 [probes], with its speaker's enrolment; others, float64 [probes, speakers - 1],
    with the others', falling, and order, int [probes * (speakers - 1)], in which all of these fall; ranks, int [probes],
    of the mate among all, ties against it."""

    mates: np.ndarray
    others: np.ndarray
    order: np.ndarray
    ranks: np.ndarray


def searches(scores: np.ndarray, mates: np.ndarray) -> Searches:
    """scores: float [enrolments, probes], one enrolment a speaker; mates: int [probes], the enrolment of the probe's."""
    probes = np.arange(scores.shape[1])
    others = np.ones(scores.shape, dtype=bool)
    others[mates, probes] = False
    others = -np.sort(-scores.T[others.T].reshape(len(probes), -1), axis=1)
    order = np.argsort(-others, axis=None, kind="stable")
    return Searches(scores[mates, probes], others, order, metrics.identification_ranks(scores, mates))


def sizes(speakers: int) -> list[int]:
    """The sizes of galleries of so many enrolled speakers: SIZES, as far as they are well below the last, which leaves
    out just the probe's own."""
    return [size for size in SIZES if 1.5 * size < speakers - 1] + [speakers - 1]


def top1(ranks: np.ndarray, size: int, others: int) -> np.ndarray:
    """How probable it is that a probe is identified in a gallery of its speaker and size - 1 of the others: float64
    [probes]; the closed-set top-1 accuracy is the mean. ranks: int [probes], among all."""
    outside = np.arange(others)
    by_rank = np.cumprod(np.append(1, np.clip((others - outside - size + 1) / (others - outside), 0, None)))
    return by_rank[ranks - 1]


def best_of_gallery(size: int, others: int) -> np.ndarray:
    """How probable it is that a gallery of `size` of the others has the one of each rank as its best: float64
    [others]."""
    rank = np.arange(others - 1)
    return size / others * np.cumprod(np.append(1, np.clip((others - size - rank) / (others - 1 - rank), 0, None)))


def fnir(searched: Searches, size: int, columns: np.ndarray, weights: np.ndarray, fpir: float = FPIR) -> np.ndarray:
    """FNIR at the lowest threshold with at most this FPIR, for galleries of `size`: float64 [resamples].

    columns: int [probes], the rows of `weights` [columns, resamples], which say how often a probe counts; NaN where
    none does. The enrolments stay as they are, as for top-1.
    """
    others = searched.others.shape[1]
    best, identified = best_of_gallery(size, others), top1(searched.ranks, size, others)
    # Non-mated scores as far down as a threshold can lie.
    order = searched.order
    reached = np.cumsum(best[order % others]) > _HEADROOM * fpir * len(searched.mates)
    order = order[: np.argmax(reached) + 1] if reached.any() else order
    probe, rank = np.divmod(order, others)
    mated = np.repeat([True, False], [len(searched.mates), len(order)])
    ranking = metrics.rank(np.concatenate([searched.mates, searched.others.flat[order]]), mated)
    corners = ranking.corners()
    run = np.empty(len(mated), dtype=int)
    run[ranking.order] = ranking.runs(corners)
    shape, totals = (len(corners), len(weights)), np.bincount(columns, minlength=len(weights)) @ weights

    def accepted(share, where, column):
        on_roc = csr_array((share, (where, column)), shape=shape)
        return np.flip(np.cumsum(np.flip(on_roc @ weights, axis=0), axis=0), axis=0)

    false = accepted(best[rank], run[~mated], columns[probe])
    right = accepted(identified, run[mated], columns)
    with np.errstate(invalid="ignore"):
        false, missed = (np.vstack([part, 0 * totals]) / totals for part in (false, right))
    return metrics.fnmr_from_rates(1 - missed, false, fpir + 1e-12)  # sums of shares are not exact


def at_threshold(searched: Searches, size: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """How probable an error is at a threshold in a gallery of `size` others, or of the probe's speaker and size - 1 others:
    that a non-mated search returns anybody, and that a mated one does not return the right speaker, float64 [probes] each.
    Their means are FPIR and FNIR."""
    others = searched.others.shape[1]
    reached = np.append(0, np.cumsum(best_of_gallery(size, others)))
    returned = reached[(searched.others >= threshold).sum(axis=1)]
    return returned, 1 - top1(searched.ranks, size, others) * (searched.mates >= threshold)


def enough(probes: int, fpir: float = FPIR) -> bool:
    """Whether so many non-mated searches can show such an FPIR: with none of 3 / fpir wrong it is below it at 95 %
    confidence (the rule of 3: ISO/IEC 19795-1; Jovanovic and Levy, "A Look at the Rule of Three", The American
    Statistician, 1997)."""
    return probes * fpir >= 3 - 1e-9


def cmc_ranks(speakers: int) -> Sequence[int]:
    """The ranks at which the cumulative match characteristic of so many enrolled speakers is given."""
    return [rank for rank in CMC_RANKS if rank <= speakers]
