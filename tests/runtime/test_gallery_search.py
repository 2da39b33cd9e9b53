import numpy as np
import pytest

from src.runtime import engine
from src.runtime.scoring import normalised
from src.runtime.search import Index


def voices(seed, number, dim, kind="flat"):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(number, dim))
    if kind == "real":  # a spectrum that falls, and a mean
        values = values * np.exp(-np.arange(dim) / (dim / 3)) + np.eye(dim)[0] * dim**0.5 / 2
    if kind == "crowded":  # a thousand voices that are nearly the same
        values = values[:1] + 1e-3 * values
    return normalised(values).astype(np.float32)


def index(vectors, size=None, part=1000):
    parts = (
        (np.arange(i, min(i + part, len(vectors))) + 7, vectors[i : i + part]) for i in range(0, len(vectors), part)
    )
    return Index(parts, len(vectors) if size is None else size)


@pytest.mark.parametrize("kind", ["flat", "real", "crowded"])
@pytest.mark.parametrize(("number", "dim"), [(1, 5), (3, 192), (47, 192), (8192, 16), (20_001, 64)])
def test_the_best_are_those_of_all_cosines(kind, number, dim):
    vectors = voices(0, number, dim, kind)
    searched = index(vectors)
    for seed, probe in enumerate([*voices(1, 3, dim, kind), *vectors[:2]]):
        expected = np.sort(vectors.astype(float) @ probe)[::-1][:5]
        positions, scores = searched.best(probe, 5)
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        np.testing.assert_allclose(vectors[positions].astype(float) @ probe, expected, atol=1e-6)
        assert len(set(positions)) == min(5, number) and (searched.ids[positions] == positions + 7).all(), seed


def test_scores_may_have_a_gain_and_an_offset_each():
    vectors, rng = voices(0, 9000, 32, "real"), np.random.default_rng(2)
    gains, offsets = rng.uniform(1, 20, 9000), rng.normal(size=9000)
    for probe in voices(1, 5, 32, "real"):
        _, scores = index(vectors).best(probe, 4, gains, offsets)
        expected = gains * (vectors.astype(float) @ probe) + offsets
        np.testing.assert_allclose(scores, np.sort(expected)[::-1][:4], atol=1e-5)


def test_nobody_is_found_among_nobody_and_what_came_too_late_is_left_out():
    positions, scores = Index(iter(()), 0).best(np.ones(4) / 2, 3)
    assert len(positions) == len(scores) == 0
    vectors = voices(0, 30, 8)
    assert len(index(vectors, size=20, part=8)) == 20


def test_products_are_exact_whatever_the_processor():
    rng = np.random.default_rng(0)
    left = rng.integers(1, 128, (1, 300), dtype=np.uint8)
    right = np.where(rng.random((4, 300, 50)) < 0.5, -127, 127).astype(np.int8)
    expected = left.astype(int) @ right.astype(int)
    np.testing.assert_array_equal(engine.integer_product(left, right), expected)
