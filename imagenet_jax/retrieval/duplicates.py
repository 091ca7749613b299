"""Near duplicates: pictures whose vectors' cosine is at least a threshold, within an index and between two. Exact, n^2 products."""

import numpy as np

from imagenet_jax.retrieval.exact import nearest
from imagenet_jax.retrieval.store import Index

QUERIES = 1 << 10  # rows at a time; with a block of the index, 32 MB of cosines


def groups(index: Index, threshold: float) -> list[list[int]]:
    """Rows that belong together, of two and more each: connected by pairs of at least `threshold`. Largest first."""
    leader = np.arange(len(index))  # of each row: a row of its group, with a lower number or its own

    def top(row: int) -> int:
        while leader[row] != row:
            leader[row] = leader[leader[row]]  # halves the way for the next
            row = leader[row]
        return row

    for first, queries in index.blocks(QUERIES):
        for start, block in index.blocks():
            if start + len(block) <= first:
                continue
            for one, other in zip(*np.nonzero(queries @ block.T >= threshold), strict=True):
                a, b = sorted((top(first + one), top(start + other)))
                leader[b] = a
    members: dict[int, list[int]] = {}
    for row in range(len(index)):
        members.setdefault(int(top(row)), []).append(row)
    return sorted((rows for rows in members.values() if len(rows) > 1), key=lambda rows: (-len(rows), rows))


def across(index: Index, other: Index, threshold: float) -> list[tuple[int, int, float]]:
    """(row of `other`, the most alike row of `index`, their cosine) where that is at least `threshold`, in order of rows."""
    found: list[tuple[int, int, float]] = []
    for first, queries in other.blocks(QUERIES):
        best = nearest(index.blocks(), queries, 1)
        alike = np.flatnonzero(best.scores[:, 0] >= threshold)
        found += [(first + int(i), int(best.rows[i, 0]), float(best.scores[i, 0])) for i in alike]
    return found
