"""Exact nearest neighbours: every vector is looked at, a block at a time, so memory does not grow with the index.

What one machine finds in its shards merges into what one machine would find in all of them: `merged`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Found(NamedTuple):
    """For each query, best first; of equal scores the lower row. Where there are fewer than k: score -inf and row -1."""

    scores: np.ndarray  # float32 (queries, k)
    rows: np.ndarray  # int64 (queries, k)


def nothing(queries: int, k: int) -> Found:
    """Where a search starts."""
    return Found(np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64))


def nearest(blocks: Iterable[tuple[int, np.ndarray]], queries: np.ndarray, k: int, keep: np.ndarray | None = None) -> Found:
    """The `k` rows with the largest inner product, which for vectors of length 1 is the cosine; of rows where `keep` is True.

    blocks: (number of the first row, float32 (rows, d)), in rising order, below 2^31. queries: float32 (queries, d). keep: bool, of
    all rows.
    """
    asked = jnp.asarray(queries)
    found = before = (jnp.full((len(asked), k), -jnp.inf), jnp.full((len(asked), k), -1, jnp.int32))
    for first, block in blocks:
        size = 1 << (len(block) - 1).bit_length()  # few shapes, so few compilations
        valid = np.zeros(size, bool)
        valid[: len(block)] = True if keep is None else keep[first : first + len(block)]
        if size != len(block):
            block = np.pad(block, ((0, size - len(block)), (0, 0)))
        jax.block_until_ready(before)  # at most two blocks are under way
        before, found = found, _best_of(found, asked, block, valid, first)
    scores, rows = map(np.asarray, found)
    return Found(scores, rows.astype(np.int64))


@jax.jit
def _best_of(
    found: tuple[jax.Array, jax.Array], queries: jax.Array, block: jax.Array, valid: jax.Array, first: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The best of what was found and the rows of a block, which are later: top_k puts the first of equals first."""
    scores = jnp.matmul(queries, block.T, precision="highest")
    scores = jnp.concatenate([found[0], jnp.where(valid[None, :], scores, -jnp.inf)], 1)
    numbers = jnp.broadcast_to(first + jnp.arange(len(block), dtype=jnp.int32)[None, :], (len(queries), len(block)))
    best, places = jax.lax.top_k(scores, found[0].shape[1])
    rows = jnp.take_along_axis(jnp.concatenate([found[1], numbers], 1), places, 1)
    return best, jnp.where(best == -jnp.inf, -1, rows)


def merged(parts: Iterable[Found], k: int) -> Found:
    """The best `k` of what was found apart, such as by machines that have a part of the shards each: exactly the best of all.

    Each part holds its own best `k`.
    """
    scores, rows = (np.concatenate(arrays, 1) for arrays in zip(*parts, strict=True))
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return Found(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))
