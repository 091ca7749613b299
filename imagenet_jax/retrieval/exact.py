"""Exact nearest neighbours: every vector is looked at, a block at a time, so memory does not grow with the index.

What one machine finds in its shards merges into what one machine would find in all of them: `merged`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Found(NamedTuple):
    """For each query, best first; of equal scores the lower row. Where there are fewer than k: score -inf and row -1."""

    scores: np.ndarray  # float32 (queries, k)
    rows: np.ndarray  # int64 (queries, k)


def nothing(queries: int, k: int) -> Found:
    """Where a search starts."""
    return Found(np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64))


def nearest(blocks: Iterable[tuple[int, np.ndarray]], queries: np.ndarray, k: int) -> Found:
    """The `k` rows with the largest inner product, which for vectors of length 1 is the cosine.

    blocks: (number of the first row, float32 (rows, d)), in rising order. queries: float32 (queries, d).
    """
    found = nothing(len(queries), k)
    for first, block in blocks:
        found = best_of(found, queries @ block.T, first)
    return found


def best_of(found: Found, scores: np.ndarray, first: int) -> Found:
    """`found` with the scores (queries, rows) of the rows from number `first` on, which are later than all in it."""
    # Once some blocks are seen, few columns beat the worst of any query's k: only those are sorted.
    columns = np.flatnonzero((scores > found.scores[:, -1:]).any(0))
    rows = np.broadcast_to(columns + first, (len(scores), len(columns)))
    return merged([found, Found(scores[:, columns], rows)], found.scores.shape[1])


def merged(parts: Iterable[Found], k: int) -> Found:
    """The best `k` of what was found apart, such as by machines that have a part of the shards each: exactly the best of all.

    Each part holds its own best `k`.
    """
    scores, rows = (np.concatenate(arrays, 1) for arrays in zip(*parts, strict=True))
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return Found(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))
