"""Batches of uint8 images from a source, decoded by threads, always the same for the same (seed, step).

The threads fill slots of preallocated arrays and share nothing else, so neither their number nor their timing can change a
pixel. A process decodes only its own rows of the global batch.
"""

import collections
import os
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from imagenet_jax.data import decode, order
from imagenet_jax.data.augment import View, central
from imagenet_jax.data.sources import Source
from imagenet_jax.errors import RunError

IMAGES_A_TASK = 4  # hand-over to a thread costs about as much as 5 % of one decode; more an image would starve small batches


class Rows(NamedTuple):
    """This process's rows of a global batch: `count` of them from row `first`."""

    first: int
    count: int


class Pixels(NamedTuple):
    """How images become squares: the same for training and evaluation."""

    engine: decode.Engine
    image_size: int
    crop_ratio: float
    antialias: bool


Batch = dict[str, np.ndarray]  # image uint8 (n, size, size, 3), label int32 (n,), mask bool (n,), id int64 (n,)


def train_batches(
    source: Source,
    pixels: Pixels,
    augment: Callable[[View, order.Draws], View],
    *,
    seed: int,
    batch_size: int,
    rows: Rows,
    start: int,
    stop: int,
    threads: int = 0,
    prefetch: int = 4,
) -> Generator[Batch]:
    """This process's share of the global batches of steps start .. stop - 1, in order.

    Raises RunError, naming the example, for one that does not decode.
    """

    def views(step: int) -> list[tuple[int, Callable[[int, int], View]]]:
        epochs, ids = order.examples(step * batch_size + rows.first, rows.count, len(source), seed)

        def view_of(epoch: int, example: int) -> Callable[[int, int], View]:
            def draw(height: int, width: int) -> View:
                # An augmentation list that chooses no box of its own starts from the whole central square of the image.
                return augment(central(height, width, pixels.image_size, 1.0), order.Draws(seed, epoch, example, 0))

            return draw

        return [(int(i), view_of(int(e), int(i))) for e, i in zip(epochs, ids, strict=True)]

    return _batches(source, pixels, views, range(start, stop), rows.count, threads, prefetch)


def eval_batches(
    source: Source, pixels: Pixels, *, batch_size: int, rows: Rows, threads: int = 0, prefetch: int = 4
) -> Generator[Batch]:
    """Every example of the source once, in stored order; the last batch is padded with black images whose mask is False."""

    def view_of(height: int, width: int) -> View:
        return central(height, width, pixels.image_size, pixels.crop_ratio)

    def views(step: int) -> list[tuple[int, Callable[[int, int], View]]]:
        first = step * batch_size + rows.first
        return [(i, view_of) for i in range(first, min(first + rows.count, len(source)))]

    return _batches(source, pixels, views, range(-(-len(source) // batch_size)), rows.count, threads, prefetch)


def _batches(
    source: Source,
    pixels: Pixels,
    views: Callable[[int], list[tuple[int, Callable[[int, int], View]]]],
    steps: range,
    count: int,
    threads: int,
    prefetch: int,
) -> Generator[Batch]:
    """Keep `prefetch` batches under way, hand them out in order; closing the iterator stops the threads."""
    pool = ThreadPoolExecutor(threads or visible_cores(), thread_name_prefix="decode")
    under_way: collections.deque[tuple[Batch, list[Future]]] = collections.deque()

    def begin(step: int) -> None:
        wanted = views(step)
        size = pixels.image_size
        batch = {
            "image": (np.empty if len(wanted) == count else np.zeros)((count, size, size, 3), np.uint8),
            "label": np.zeros(count, np.int32),
            "mask": np.arange(count) < len(wanted),
            "id": np.full(count, -1, np.int64),
        }

        def fill(first: int) -> None:
            for slot, (index, view_of) in enumerate(wanted[first : first + IMAGES_A_TASK], first):
                record = source.read(index)
                try:
                    decode.render(record.image, view_of, pixels.engine, pixels.antialias, batch["image"][slot])
                except ValueError as error:
                    raise RunError(
                        f"{record.name} (example {index} of {source.dataset}, split {source.split}) does not decode: {error}. "
                        "Prepare the data set again: `prepare` leaves such images out and names them."
                    ) from error
                batch["label"][slot], batch["id"][slot] = record.label, index

        under_way.append((batch, [pool.submit(fill, i) for i in range(0, len(wanted), IMAGES_A_TASK)]))

    try:
        ahead = iter(steps)
        for step in ahead:
            begin(step)
            if len(under_way) > prefetch:
                break
        while under_way:
            batch, tasks = under_way.popleft()
            for task in tasks:
                task.result()
            yield batch
            if (step := next(ahead, None)) is not None:
                begin(step)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def visible_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
