"""Exact search: equal to sorting everything, in whatever parts it is done."""

import numpy as np
import pytest

from imagenet_jax.retrieval import exact


def whole(vectors, queries, k):
    scores = queries @ vectors.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, 1)


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_equals_sorting_all(random_unit, block):
    rng = np.random.default_rng(0)
    vectors, queries = random_unit(rng, 501, 16), random_unit(rng, 5, 16)
    found = exact.nearest(((i, vectors[i : i + block]) for i in range(0, 501, block)), queries, 20)
    rows, scores = whole(vectors, queries, 20)
    assert found.rows.tolist() == rows.tolist()
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5, atol=1e-6)
    keep = rng.uniform(size=501) < 0.2
    few = exact.nearest(((i, vectors[i : i + block]) for i in range(0, 501, block)), queries, 20, keep)
    assert few.rows.tolist() == np.flatnonzero(keep)[whole(vectors[keep], queries, 20)[0]].tolist()


def test_of_equal_scores_the_lower_row_wins():
    vectors = np.tile(np.float32([[1, 0], [0, 1]]), (50, 1))
    found = exact.nearest(((i, vectors[i : i + 9]) for i in range(0, 100, 9)), np.float32([[1, 0]]), 5)
    assert found.rows.tolist() == [[0, 2, 4, 6, 8]]


def test_what_machines_find_apart_merges_into_what_one_finds(random_unit):
    rng = np.random.default_rng(1)
    vectors, queries = random_unit(rng, 640, 8), random_unit(rng, 3, 8)
    blocks = [(i, vectors[i : i + 64]) for i in range(0, 640, 64)]
    parts = [exact.nearest(blocks[machine::3], queries, 10) for machine in range(3)]
    together = exact.nearest(blocks, queries, 10)
    merged = exact.merged(parts, 10)
    assert merged.rows.tolist() == together.rows.tolist()
    assert merged.scores.tolist() == together.scores.tolist()  # to the last bit


def test_fewer_rows_than_wanted_leave_places_empty():
    found = exact.nearest([(0, np.eye(2, dtype=np.float32))], np.float32([[1, 0]]), 4)
    assert found.rows.tolist() == [[0, 1, -1, -1]]
    assert found.scores[0, 2:].tolist() == [-np.inf] * 2
