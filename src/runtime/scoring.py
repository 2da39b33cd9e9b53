"""Scores of embeddings."""

import numpy as np


def mean_direction(embeddings):
    """The mean of length-normalised embeddings [n, dim], length-normalised: float64 [dim]."""
    return normalised(normalised(np.asarray(embeddings, dtype=np.float64)).mean(axis=0))


def normalised(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)
