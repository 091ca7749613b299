"""Batches made by the threads of one process, each filling slots of preallocated arrays.

They share nothing else, so neither their number nor their timing can change a pixel.
"""

import collections
import os
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from imagenet_jax.data.batches.views import Pixels, Rows, Views, Wanted, side_at
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.records import Source
from imagenet_jax.errors import RunError

IMAGES_A_TASK = 4  # hand-over to a thread costs about as much as 5 % of one decode; more an image would starve small batches
SUBSTITUTES = 16  # examples tried in the place of one that does not decode

Batch = dict[str, np.ndarray]  # image uint8 (n, size, size, 3), label int32 (n,), mask bool (n,), id and instead_of int64 (n,)


def in_threads(
    source: Source,
    pixels: Pixels,
    views: Views,
    rows: Rows,
    threads: int,
    prefetch: int,
    memory: Callable[[tuple[int, ...]], np.ndarray],
) -> Generator[Batch]:
    """Keep `prefetch` batches under way, hand them out in order; closing the iterator stops the threads.

    `memory` gives the array for the pixels of a batch of that shape.
    """
    pool = ThreadPoolExecutor(threads or visible_cores(), thread_name_prefix="decode")
    under_way: collections.deque[tuple[Batch, list[Future]]] = collections.deque()

    def begin(step: int) -> None:
        wanted, side = views(step, rows, len(source), pixels), side_at(step, views.sizes, pixels)
        batch = {
            "image": memory((rows.count, side, side, 3)),
            "label": np.zeros(rows.count, np.int32),
            "mask": np.arange(rows.count) < len(wanted),
            "id": np.full(rows.count, -1, np.int64),
            "instead_of": np.full(rows.count, -1, np.int64),
        }
        batch["image"][len(wanted) :] = 0

        def fill(first: int) -> None:
            for slot, row in enumerate(wanted[first : first + IMAGES_A_TASK], first):
                _fill(source, pixels, views, row, batch, slot)

        under_way.append((batch, [pool.submit(fill, i) for i in range(0, len(wanted), IMAGES_A_TASK)]))

    try:
        ahead = iter(views.steps)
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


def fresh(shape: tuple[int, ...]) -> np.ndarray:
    """New memory for the pixels of a batch."""
    return np.empty(shape, np.uint8)


def _fill(source: Source, pixels: Pixels, views: Views, row: Wanted, batch: Batch, slot: int) -> None:
    """Decode one row into its slot."""
    square = batch["image"][slot]
    tries = SUBSTITUTES if views.broken == "substitute" else 1
    for tried in range(tries):
        index = (row.index + tried) % len(source)
        try:
            label = _render(source, index, pixels, row, square)
        except RunError as error:
            if tries == 1:
                raise
            if tried + 1 == tries:
                raise RunError(f"{tries} examples in a row are broken, from {row.index} on. The last: {error}") from error
            continue
        batch["label"][slot], batch["id"][slot] = label, index
        batch["instead_of"][slot] = row.index if tried else -1
        return


def _render(source: Source, index: int, pixels: Pixels, row: Wanted, out: np.ndarray) -> int:
    """Write the row's view of example `index`; returns its label."""
    record = source.read(index)
    try:
        decode.render(record.image, row.view_of, pixels.engine, pixels.antialias, out, pixels.max_pixels)
    except ValueError as error:
        raise RunError(
            f"{record.name} (example {index} of {source.dataset}, split {source.split}) does not decode: {error}. `prepare` leaves "
            "such images out and names them: prepare the data set again, or train with --config.data.broken=substitute."
        ) from error
    if row.finish is not None:
        row.finish(out)
    return record.label


def visible_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
