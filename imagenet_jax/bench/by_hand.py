"""The loop that one writes oneself around a decoder: a pool of threads that fills arrays.

Peers that are only a decoder (OpenCV, simplejpeg, nvImageCodec) are measured in it.
"""

import collections
import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from imagenet_jax.bench.task import Square, Task, draw_view

AHEAD = 4  # batches under way, as in our loader
IMAGES_A_TASK = 4  # likewise


def threaded(task: Task, square: Square) -> Iterator[np.ndarray]:
    """Batches of random squares of the task's images, in turn, made by one thread a core."""
    images = task.images
    pool = ThreadPoolExecutor(task.cores)
    under_way: collections.deque[tuple[np.ndarray, list[Future]]] = collections.deque()
    slots = [range(i, min(i + IMAGES_A_TASK, task.batch_size)) for i in range(0, task.batch_size, IMAGES_A_TASK)]

    def fill(batch: np.ndarray, some: range, first: int) -> None:
        for slot in some:
            number = first + slot
            batch[slot] = square(images[number % len(images)], draw_view(task.size, number))

    for step in itertools.count():
        batch = np.empty((task.batch_size, task.size, task.size, 3), np.uint8)
        under_way.append((batch, [pool.submit(fill, batch, some, step * task.batch_size) for some in slots]))
        if len(under_way) > AHEAD:
            done, futures = under_way.popleft()
            for future in futures:
                future.result()
            yield done
