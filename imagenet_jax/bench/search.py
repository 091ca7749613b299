"""What a search costs among many vectors: seconds and memory of the exact one, recall and seconds of the approximate one.

The vectors are synthetic: directions around random centres, as features of pictures lie. Without any structure (independent normal
numbers) no index but the exact one would find much, and none would be needed.
"""

import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from imagenet_jax.bench import stats
from imagenet_jax.logs import write_json
from imagenet_jax.retrieval import approximate, exact, store

CENTRES = 10_000
SPREAD = 0.5  # length of what is added to a centre; two vectors of one centre have a cosine of about 1 / (1 + 0.25) = 0.8
TOP = 2


def make(folder: pathlib.Path, rows: int, dimension: int, queries: int) -> np.ndarray:
    """Write an index of `rows` vectors, a shard at a time, and return `queries` more of the same kind, float32 (queries, d)."""
    rng = np.random.default_rng(0)
    centres = _unit(rng.standard_normal((CENTRES, dimension), np.float32))

    def draw(count: int) -> np.ndarray:
        noise = rng.standard_normal((count, dimension), np.float32) * np.float32(SPREAD / dimension**0.5)
        return _unit(centres[rng.integers(0, CENTRES, count)] + noise)

    asked = draw(queries)
    manifest: dict[str, Any] = {
        "format": store.FORMAT,
        "model": {"name": "synthetic", "settings": {}},
        "weights": {"sha256": "", "folder": "", "step": 0, "which": "raw"},
        "preprocessing": {"image_size": 1},
        "data": {
            "dataset": "synthetic",
            "version": "1",
            "split": "",
            "fingerprint": f"{rows} {dimension}",
            "images": rows,
            "classes": [],
        },
        "classes": ["none", "nothing"],
        "dimension": dimension,
        "shard": store.SHARD,
        "top": TOP,
    }
    write_json(folder / "index.json", manifest)
    for shard in range(store.shard_count(manifest)):
        ids = np.array(store.shard_ids(manifest, shard), np.int64)
        predicted = store.Predictions(np.zeros((len(ids), TOP), np.int32), np.zeros((len(ids), TOP), np.float32))
        names = [str(i) for i in ids]
        store.write_shard(
            folder, manifest, shard, store.Rows(draw(len(ids)), ids, names, np.full(len(ids), -1, np.int32), predicted)
        )
    return asked


def measure(folder: pathlib.Path, queries: np.ndarray, k: int, rounds: int) -> dict[str, Any]:
    """Seconds of an exact and an approximate search for the `k` nearest of all queries, recall@10, and memory at its peak."""
    index = store.Index(folder)
    result: dict[str, Any] = {"rows": len(index), "dimension": index.dimension, "queries": len(queries), "k": k}
    result["resident_before"] = peak_memory()
    result["exact_first"], truth = _timed(lambda: exact.nearest(index.blocks(), queries, k))  # with compilation
    exact.nearest(index.blocks(), queries[:1], k)
    before = time.process_time()
    result["exact"] = stats.summary([_timed(lambda: exact.nearest(index.blocks(), queries, k))[0] for _ in range(rounds)])
    result["exact_cpu"] = (time.process_time() - before) / rounds  # of all cores, whatever else they do
    result["exact_one_query"] = stats.summary(
        [_timed(lambda: exact.nearest(index.blocks(), queries[:1], k))[0] for _ in range(rounds)]
    )
    result["resident_exact"] = peak_memory()
    result["build"], _ = _timed(lambda: approximate.build(index))
    result["resident_build"] = peak_memory()
    made = approximate.Approximate(index)
    result["approximate_bytes"] = made.size
    result["approximate"] = stats.summary([_timed(lambda: made.nearest(queries, k))[0] for _ in range(rounds)])
    found = made.nearest(queries, 10)
    hits = [len(set(a) & set(b)) / 10 for a, b in zip(truth.rows[:, :10].tolist(), found.rows.tolist(), strict=True)]
    result["recall_at_10"] = float(np.mean(hits))
    return result


def text(r: dict[str, Any]) -> str:
    """The result for people."""

    def seconds(key: str) -> str:
        return f"{r[key]['median']:.3f} s [{r[key]['min']:.3f}-{r[key]['max']:.3f}], n = {r[key]['n']}"

    def memory(key: str) -> str:
        return f"{r[key] / 2**20:,.0f} MiB"

    return "\n".join(
        [
            f"{r['rows']:,} synthetic vectors of {r['dimension']} numbers, top {r['k']} of {r['queries']} queries",
            f"exact        {seconds('exact')}; {memory('resident_exact')} resident at most, {memory('resident_before')} before",
            f"  of cores   {r['exact_cpu']:.2f} s",
            f"  one query  {seconds('exact_one_query')}; the first search of all, which compiles, {r['exact_first']:.3f} s",
            f"approximate  {seconds('approximate')}; recall@10 {r['recall_at_10']:.3f}, {r['approximate_bytes'] / 1e6:,.0f} MB",
            f"  building   {r['build']:.1f} s, {memory('resident_build')}",
        ]
    )


def peak_memory() -> int:
    """Bytes that this process had resident at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    out = function()
    return time.perf_counter() - start, out


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
