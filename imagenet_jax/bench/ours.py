"""Our own loader, over records in memory. With `task.engine` None, the whole way of an image but for its pixels."""

import collections
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import imagenet_jax
from imagenet_jax.bench.task import Square, Task, ViewOf
from imagenet_jax.data.augmentation import augment
from imagenet_jax.data.batches import loader
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.records import Record, Source

VIEW = (("random_resized_crop", {}), ("flip", {}))
ANY_ENGINE = "opencv"  # where nothing is decoded
WITHOUT_PIXELS = (375, 500)  # height and width that an image has for the view when nothing is decoded
WARM = 8  # batches before the time is split: twice the prefetch


def version() -> str:
    """Of this package."""
    return imagenet_jax.__version__


def batches(task: Task) -> Iterator[np.ndarray]:
    """Training batches without end."""
    if task.engine is None:
        decode.render = draw_only  # for the whole process, which measures nothing else
    return _views(task, task.memory, decode.engine(task.engine or ANY_ENGINE))


def _views(task: Task, source: Source, engine: decode.Engine) -> Iterator[np.ndarray]:
    for batch in loader.train_batches(
        source,
        loader.Pixels(engine, task.size, 0.875, task.antialias),
        augment.chain(VIEW),
        seed=0,
        batch_size=task.batch_size,
        rows=loader.Rows(0, task.batch_size),
        start=0,
        stop=sys.maxsize // task.batch_size,
        threads=task.cores,
    ):
        yield batch["image"]


def draw_only(data: bytes, view_of: ViewOf, *how: Any) -> None:
    """What `decode.render` does, without decoding, resizing and writing."""
    view_of(*WITHOUT_PIXELS)


def square(task: Task) -> Square | None:
    """The pixels of one view; None where nothing is decoded."""
    if task.engine is None:
        return None
    engine = decode.engine(task.engine)

    def made(data: bytes, view_of: ViewOf) -> np.ndarray:
        out = np.empty((task.size, task.size, 3), np.uint8)
        decode.render(data, view_of, engine, task.antialias, out)
        return out

    return made


def split(task: Task, seconds: float) -> dict[str, float]:
    """Where one decoding thread spends an image, in microseconds, reading from the files.

    Keys: read; the steps of the engine, crop and resize; render (all that `decode.render` does besides); rest (drawing keys,
    handing over, waiting); and images, how many were counted.
    """
    spent: collections.defaultdict[str, float] = collections.defaultdict(float)

    def timed(name: str, function: Callable) -> Callable:
        def wrapper(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args)
            finally:
                spent[name] += time.perf_counter() - start

        return wrapper

    engine = decode.engine(task.engine or ANY_ENGINE)
    steps = {name: timed(name, value) for name, value in engine._asdict().items() if callable(value)}
    source = dataclasses.replace(task.stored, records=Timed(timed("read", task.stored.read), len(task.memory)))
    views = _views(task._replace(cores=1), source, engine._replace(**steps))
    render, decode.render = decode.render, timed("render", decode.render)
    try:
        for _ in range(WARM):
            next(views)
        spent.clear()
        start, images = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            images += len(next(views))
        spent["rest"] = elapsed - spent["read"] - spent["render"]
        spent["render"] -= sum(spent[name] for name in steps)
    finally:
        decode.render = render
    return {name: 1e6 * value / images for name, value in spent.items()} | {"images": images}


class Timed:
    """Records by a function that reads one; the first `count`, which are in the system's page cache."""

    def __init__(self, read: Callable[[int], Record], count: int) -> None:
        self._read, self._count = read, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Record:
        return self._read(index)
