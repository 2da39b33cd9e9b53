"""Scores of embeddings."""

from typing import Any

import numpy as np

from src.runtime.errors import InputError

_CELLS = 1 << 22  # scores held at once


def mean_direction(embeddings: np.ndarray) -> np.ndarray:
    """The mean of length-normalised embeddings [n, dim], length-normalised: float64 [dim]."""
    return normalised(normalised(np.asarray(embeddings, dtype=np.float64)).mean(axis=0))


def normalised(values: np.ndarray) -> np.ndarray:
    """Vectors [..., dim], each divided by its length."""
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def s_norm(cosines: Any, enrolled: np.ndarray, tests: np.ndarray) -> Any:
    """A cosine or an array of them, normalised symmetrically by the `spread` of either side, [2, ...]: s-norm."""
    by_enrol, by_test = ((cosines - mean) / std for mean, std in (enrolled, tests))
    return (by_enrol + by_test) / 2


def spread(vectors: np.ndarray, cohort: np.ndarray, top: int | None = None) -> np.ndarray:
    """Mean and standard deviation, float64 [2, n], of the cosines of vectors [n, dim] to a cohort's [speakers, dim], all
    length-normalised; of each vector's `top` highest (None: of all). Raises InputError where they do not differ."""
    spreads, step = [np.zeros((2, 0))], max(1, _CELLS // len(cohort))
    for start in range(0, len(vectors), step):
        cosines = vectors[start : start + step] @ cohort.T
        if top:
            cosines = np.sort(np.partition(cosines, -top)[:, -top:])
        spreads.append(np.stack([cosines.mean(axis=1), cosines.std(axis=1)]))
    values = np.concatenate(spreads, axis=1)
    if not (values[1] > 1e-9).all():
        raise InputError("normalisation: the cohort's scores of a recording are all the same")
    return values
