"""Approximate nearest neighbours by faiss (extra [search]): an inverted file of 8-bit vectors, mapped from the disk.

Built a block at a time, so memory holds the training sample and what faiss has compressed, never all vectors. What it finds is
scored again by the vectors themselves, so scores are exact and 8 bits decide only who is looked at.
"""

import json
import os
from typing import Any

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.retrieval.exact import Found, nearest, nothing
from imagenet_jax.retrieval.store import Index

FILE, FACTS = "approximate.faiss", "approximate.json"
PER_LIST = 40  # vectors that faiss wants for training a centroid
LOOKED_AT = 4  # candidates for each of the k that are wanted
CHECKED = 100  # queries that recall is counted on


def lists_for(rows: int) -> int:
    """Inverted lists for so many rows: 2 sqrt(n), with enough vectors to train each. Twice as many train four times as long."""
    return max(1, min(int(2 * rows**0.5), rows // PER_LIST))


class Approximate:
    """The approximate index that lies in an index's folder."""

    def __init__(self, index: Index):
        """Raises UserError where there is none, where it is of other vectors, and without faiss."""
        faiss, path = _faiss(), index.folder / FILE
        try:
            facts = json.loads((index.folder / FACTS).read_text())
            same = facts["of"] == _identity(index) and int(facts["probes"]) > 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{index.folder} has no approximate index ({error}). Make it: python -m imagenet_jax.index build {index.folder}"
            ) from None
        if not same:
            raise UserError(f"{path} is of other vectors than those beside it. Make it anew: python -m imagenet_jax.index build")
        try:
            self._approximate: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise UserError(f"{path} cannot be read: {str(error).splitlines()[-1]}. Make it anew: index build") from None
        if self._approximate.d != index.dimension or self._approximate.ntotal != len(index):
            raise UserError(f"{path} is damaged. Make it anew: python -m imagenet_jax.index build")
        faiss.extract_index_ivf(self._approximate).nprobe = int(facts["probes"])
        self._index, self.size = index, path.stat().st_size

    def nearest(self, queries: np.ndarray, k: int) -> Found:
        """As exact.nearest, but some may be missed."""
        _, candidates = self._approximate.search(np.ascontiguousarray(queries, np.float32), min(LOOKED_AT * k, len(self._index)))
        found = nothing(len(queries), k)
        for query, rows, line_scores, line_rows in zip(queries, candidates, *found, strict=True):
            rows = np.sort(rows[rows >= 0])  # of equal scores the lower row
            scores = self._index.vectors(rows) @ query
            best = np.argsort(-scores, kind="stable")[:k]
            line_scores[: len(best)], line_rows[: len(best)] = scores[best], rows[best]
        return found


def build(index: Index, probes: int = 0) -> int:
    """Write the approximate index; returns in how many lists a query looks: `probes`, else a sixteenth of all, at least 8."""
    faiss, lists = _faiss(), lists_for(len(index))
    probes = min(lists, probes or max(8, lists // 16))
    made = faiss.index_factory(index.dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    made.train(_sample(index, lists * PER_LIST))
    for _, block in index.blocks():
        made.add(block)
    draft = index.folder / f".{FILE}.{os.getpid()}"
    faiss.write_index(made, str(draft))
    os.replace(draft, index.folder / FILE)
    (index.folder / FACTS).write_text(json.dumps({"of": _identity(index), "lists": lists, "probes": probes}) + "\n")
    return probes


def recall(index: Index, approximate: Approximate, k: int = 10) -> tuple[float, int]:
    """(share of the exact `k` nearest that are found, number of queries): rows of the index, evenly spaced, themselves left out."""
    rows = np.unique(np.linspace(0, len(index) - 1, CHECKED).astype(int))
    queries = index.vectors(rows)
    wanted, found = (
        without_self(r.rows, rows) for r in (nearest(index.blocks(), queries, k + 1), approximate.nearest(queries, k + 1))
    )
    hits = [len(set(a) & set(b)) / max(1, len(a)) for a, b in zip(wanted, found, strict=True)]
    return float(np.mean(hits)), len(rows)


def without_self(found: np.ndarray, rows: np.ndarray) -> list[list[int]]:
    """What was found for each of `rows`, but for the row itself: one less than the width, at most."""
    width = found.shape[1] - 1
    return [[int(r) for r in line if r >= 0 and r != row][:width] for line, row in zip(found, rows, strict=True)]


def _sample(index: Index, count: int) -> np.ndarray:
    """About `count` vectors, evenly spaced through all."""
    step = max(1, len(index) // count)
    return np.concatenate([block[-first % step :: step].copy() for first, block in index.blocks()])  # a view would keep the block


def _identity(index: Index) -> dict[str, Any]:
    return {"weights": index.manifest["weights"]["sha256"], "data": index.manifest["data"]["fingerprint"], "rows": len(index)}


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise UserError("Approximate search needs faiss, which is not installed: pip install 'imagenet_jax[search]'") from None
    return faiss
