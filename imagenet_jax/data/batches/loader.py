"""Batches of uint8 images from a source, by threads or processes, always the same for the same (seed, step).

No pixel depends on the number of threads (threads.py), nor on that of worker processes, each of which runs the same threads over
its share of every batch (workers.py). A process of a distributed run decodes only its own rows of the global batch.
"""

from collections.abc import Generator
from typing import Literal

import numpy as np

from imagenet_jax.data.augmentation.augment import Chain
from imagenet_jax.data.batches.threads import Batch, fresh, in_threads
from imagenet_jax.data.batches.views import EvalViews, Pixels, Rows, Sizes, TrainViews, Views
from imagenet_jax.data.batches.workers import in_processes
from imagenet_jax.data.reading.records import Source


def train_batches(
    source: Source,
    pixels: Pixels,
    augment: Chain,
    *,
    seed: int,
    batch_size: int,
    rows: Rows,
    start: int,
    stop: int,
    repeats: int = 1,
    broken: Literal["fail", "substitute"] = "fail",
    sizes: Sizes = (),
    threads: int = 0,
    processes: int = 0,
    prefetch: int = 4,
) -> Generator[Batch]:
    """This process's share of the global batches of steps start .. stop - 1, in order.

    An example that does not decode raises RunError, naming it, or gives way to the one with the next id (`broken` = "substitute"),
    always the same one; `instead_of` then holds the id that was due, and -1 everywhere else. `sizes`: where the squares of a step
    are not of pixels.image_size.
    """
    views = TrainViews(augment, seed, batch_size, range(start, stop), repeats, broken, sizes)
    return _batches(source, pixels, views, rows, threads, processes, prefetch)


def eval_batches(
    source: Source,
    pixels: Pixels,
    *,
    batch_size: int,
    rows: Rows,
    threads: int = 0,
    processes: int = 0,
    prefetch: int = 4,
) -> Generator[Batch]:
    """Every example of the source once, in stored order; the last batch is padded with black images whose mask is False."""
    views = EvalViews(batch_size, range(-(-len(source) // batch_size)))
    return _batches(source, pixels, views, rows, threads, processes, prefetch)


def first(source: Source, pixels: Pixels, count: int) -> np.ndarray:
    """The evaluation views of the first `count` examples, or of all: uint8 (n, size, size, 3)."""
    (batch,) = in_threads(source, pixels, EvalViews(count, range(1)), Rows(0, count), 0, 0, fresh)
    return batch["image"][batch["mask"]]


def _batches(
    source: Source, pixels: Pixels, views: Views, rows: Rows, threads: int, processes: int, prefetch: int
) -> Generator[Batch]:  # fmt: skip
    if not processes:
        return in_threads(source, pixels, views, rows, threads, prefetch, fresh)
    return in_processes(source, pixels, views, rows, threads, processes, prefetch)
