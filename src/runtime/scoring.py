"""Scores of embeddings."""

import numpy as np


def mean_direction(embeddings: np.ndarray) -> np.ndarray:
    """The mean of length-normalised embeddings [n, dim], length-normalised: float64 [dim]."""
    return normalised(normalised(np.asarray(embeddings, dtype=np.float64)).mean(axis=0))


def normalised(values: np.ndarray) -> np.ndarray:
    """Vectors [..., dim], each divided by its length."""
    return values / np.linalg.norm(values, axis=-1, keepdims=True)
