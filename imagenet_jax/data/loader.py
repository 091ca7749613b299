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
from imagenet_jax.data.augment import Chain, View, central
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


class Wanted(NamedTuple):
    """One row of a batch: which example, where to look (given height and width), and what to do to the finished square."""

    index: int
    view_of: Callable[[int, int], View]
    finish: Callable[[np.ndarray], None] | None = None


Batch = dict[str, np.ndarray]  # image uint8 (n, size, size, 3), label int32 (n,), mask bool (n,), id int64 (n,)


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
    threads: int = 0,
    prefetch: int = 4,
) -> Generator[Batch]:
    """This process's share of the global batches of steps start .. stop - 1, in order.

    Raises RunError, naming the example, for one that does not decode.
    """

    def wanted(step: int) -> list[Wanted]:
        places = order.examples(step * batch_size + rows.first, rows.count, len(source), seed, repeats)
        return [one(*map(int, place)) for place in zip(*places, strict=True)]

    def one(epoch: int, example: int, number: int) -> Wanted:
        draws = order.Draws(seed, epoch, example, number)

        def view_of(height: int, width: int) -> View:
            # An augmentation list that chooses no box of its own starts from the whole central square of the image.
            return augment.view(central(height, width, pixels.image_size, 1.0), draws)

        def finish(square: np.ndarray) -> None:
            square[...] = augment.pixels(square, draws)

        return Wanted(example, view_of, finish if augment.has_pixels else None)

    return _batches(source, pixels, wanted, range(start, stop), rows.count, threads, prefetch)


def eval_batches(
    source: Source, pixels: Pixels, *, batch_size: int, rows: Rows, threads: int = 0, prefetch: int = 4
) -> Generator[Batch]:
    """Every example of the source once, in stored order; the last batch is padded with black images whose mask is False."""

    def view_of(height: int, width: int) -> View:
        return central(height, width, pixels.image_size, pixels.crop_ratio)

    def wanted(step: int) -> list[Wanted]:
        first = step * batch_size + rows.first
        return [Wanted(i, view_of) for i in range(first, min(first + rows.count, len(source)))]

    return _batches(source, pixels, wanted, range(-(-len(source) // batch_size)), rows.count, threads, prefetch)


def _batches(
    source: Source,
    pixels: Pixels,
    wanted: Callable[[int], list[Wanted]],
    steps: range,
    count: int,
    threads: int,
    prefetch: int,
) -> Generator[Batch]:
    """Keep `prefetch` batches under way, hand them out in order; closing the iterator stops the threads."""
    pool = ThreadPoolExecutor(threads or visible_cores(), thread_name_prefix="decode")
    under_way: collections.deque[tuple[Batch, list[Future]]] = collections.deque()

    def begin(step: int) -> None:
        rows = wanted(step)
        size = pixels.image_size
        batch = {
            "image": (np.empty if len(rows) == count else np.zeros)((count, size, size, 3), np.uint8),
            "label": np.zeros(count, np.int32),
            "mask": np.arange(count) < len(rows),
            "id": np.full(count, -1, np.int64),
        }

        def fill(first: int) -> None:
            for slot, (index, view_of, finish) in enumerate(rows[first : first + IMAGES_A_TASK], first):
                record = source.read(index)
                try:
                    decode.render(record.image, view_of, pixels.engine, pixels.antialias, batch["image"][slot])
                except ValueError as error:
                    raise RunError(
                        f"{record.name} (example {index} of {source.dataset}, split {source.split}) does not decode: {error}. "
                        "Prepare the data set again: `prepare` leaves such images out and names them."
                    ) from error
                if finish is not None:
                    finish(batch["image"][slot])
                batch["label"][slot], batch["id"][slot] = record.label, index

        under_way.append((batch, [pool.submit(fill, i) for i in range(0, len(rows), IMAGES_A_TASK)]))

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
