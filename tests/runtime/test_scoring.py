import numpy as np
import pytest

from src.runtime.scoring import mean_direction, normalised


def test_enrolments_count_by_direction_whatever_their_length():
    found = mean_direction(np.array([[100, 0], [0, 0.001]], np.float32))
    assert found.dtype == np.float64 and found == pytest.approx([0.5**0.5, 0.5**0.5], abs=1e-7)
    assert mean_direction([[0, -3.0]]).tolist() == [0, -1]


def test_every_vector_gets_length_one():
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    lengths = np.sqrt((normalised(values) ** 2).sum(axis=2))
    assert lengths == pytest.approx(np.ones((3, 4)))
    assert (np.sign(normalised(values)) == np.sign(values)).all()
