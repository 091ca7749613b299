"""grain's MapDataset around our own decode function, in grain's threads; without pixels where `task.engine` is None.

It compares the loop only: same engine, same views. Decoded squares are stacked by grain's `batch`, its own way.
"""

from collections.abc import Iterator
from importlib import metadata

import numpy as np
from grain import python as grain  # pyright: ignore[reportMissingImports]

from imagenet_jax.bench import ours
from imagenet_jax.bench.task import Task, ViewOf, draw_view

THREADS_A_CORE = 2  # with 1, 2 and 4 it was as fast within the spread of 4 rounds, on one core and on two; 16 was slower
AHEAD = 4  # batches under way, as in our loader
PIXEL = np.zeros((1, 1, 3), np.uint8)

square = ours.square


def version() -> str:
    """Of grain."""
    return metadata.version("grain")


def batches(task: Task) -> Iterator[np.ndarray]:
    """Shuffled, repeated, decoded, batched."""
    images, render = task.images, square(task) or _nothing

    def made(position: int, number: int) -> np.ndarray:
        return render(images[number], draw_view(task.size, position))

    dataset = grain.MapDataset.range(len(images)).seed(0).shuffle().repeat().map_with_index(made)
    options = grain.ReadOptions(num_threads=THREADS_A_CORE * task.cores, prefetch_buffer_size=AHEAD * task.batch_size)
    return iter(dataset.to_iter_dataset(options).batch(task.batch_size))


def _nothing(data: bytes, view_of: ViewOf) -> np.ndarray:
    """In grain's favour a single pixel: stacking whole squares would cost it the copies that our loader does without."""
    view_of(*ours.WITHOUT_PIXELS)
    return PIXEL
