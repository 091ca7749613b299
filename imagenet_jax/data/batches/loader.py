"""Batches of uint8 images from a source, decoded by threads, always the same for the same (seed, step).

The threads fill slots of preallocated arrays and share nothing else, so neither their number nor their timing can change a
pixel; nor can the number of worker processes, each of which runs the same threads over its share of every batch (workers.py). A
process of a distributed run decodes only its own rows of the global batch.
"""

import collections
import dataclasses
import os
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple, Protocol

import numpy as np

from imagenet_jax.data import order
from imagenet_jax.data.augmentation.augment import Chain, View, central
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.records import Source
from imagenet_jax.errors import RunError

IMAGES_A_TASK = 4  # hand-over to a thread costs about as much as 5 % of one decode; more an image would starve small batches
SUBSTITUTES = 16  # examples tried in the place of one that does not decode

Sizes = tuple[tuple[int, int], ...]  # sides of the squares: ((from this step on, pixels), ...), the first from step 0

Batch = dict[str, np.ndarray]  # image uint8 (n, size, size, 3), label int32 (n,), mask bool (n,), id and instead_of int64 (n,)


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
    max_pixels: int = decode.MAX_PIXELS


class Wanted(NamedTuple):
    """One row of a batch: which example, where to look (given height and width), and what to do to the finished square."""

    index: int
    view_of: Callable[[int, int], View]
    finish: Callable[[np.ndarray], None] | None = None


class Views(Protocol):
    """What the batches show; can be pickled for another process. `steps` is what there is, `sizes` () where image_size holds."""

    @property
    def steps(self) -> range: ...
    @property
    def broken(self) -> Literal["fail", "substitute"]: ...
    @property
    def sizes(self) -> Sizes: ...

    def __call__(self, step: int, rows: Rows, size: int, pixels: Pixels) -> list[Wanted]:
        """The rows of the batch of `step` out of a data set of `size` examples; fewer than rows.count where it ends."""
        ...


@dataclasses.dataclass(frozen=True)
class TrainViews:
    """Augmented views in the order of the run."""

    augment: Chain
    seed: int
    batch_size: int
    steps: range
    repeats: int = 1
    broken: Literal["fail", "substitute"] = "fail"
    sizes: Sizes = ()

    def __call__(self, step: int, rows: Rows, size: int, pixels: Pixels) -> list[Wanted]:
        side = side_at(step, self.sizes, pixels)
        epochs, ids, numbers = order.examples(
            step * self.batch_size + rows.first, rows.count, size, self.seed, self.repeats, self.batch_size
        )
        keys, phases = order.hash64_each(self.seed, epochs, ids, numbers), order.phases(self.seed, epochs, ids)
        return [self._one(*row, side) for row in zip(ids.tolist(), keys.tolist(), phases.tolist(), strict=True)]

    def _one(self, example: int, key: int, phase: int, side: int) -> Wanted:
        draws = order.Draws.at(key, phase)

        def view_of(height: int, width: int) -> View:
            # An augmentation list that chooses no box of its own starts from the whole central square of the image.
            return self.augment.view(central(height, width, side, 1.0), draws)

        def finish(square: np.ndarray) -> None:
            square[...] = self.augment.pixels(square, draws)

        return Wanted(example, view_of, finish if self.augment.has_pixels else None)


@dataclasses.dataclass(frozen=True)
class EvalViews:
    """The central view of every example once, in stored order."""

    batch_size: int
    steps: range
    broken: Literal["fail"] = "fail"  # never "substitute": every image is counted once
    sizes: Sizes = ()

    def __call__(self, step: int, rows: Rows, size: int, pixels: Pixels) -> list[Wanted]:
        def view_of(height: int, width: int) -> View:
            return central(height, width, pixels.image_size, pixels.crop_ratio)

        first = step * self.batch_size + rows.first
        return [Wanted(i, view_of) for i in range(first, min(first + rows.count, size))]


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
    from imagenet_jax.data.batches import workers  # it imports this module, in each worker

    return workers.in_processes(source, pixels, views, rows, threads, processes, prefetch)


def side_at(step: int, sizes: Sizes, pixels: Pixels) -> int:
    """The side of the squares of that step."""
    return next((side for begin, side in reversed(sizes) if begin <= step), pixels.image_size)


def fresh(shape: tuple[int, ...]) -> np.ndarray:
    """New memory for the pixels of a batch."""
    return np.empty(shape, np.uint8)


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
