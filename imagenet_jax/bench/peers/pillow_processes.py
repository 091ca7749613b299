"""Pillow in worker processes, as torchvision's ImageNet example with torch's DataLoader: full decode, crop, antialiased bilinear.

One worker a core. A worker collates its batch in shared memory and the main process takes it as it is, two batches a worker
under way (torch's prefetch_factor). Memory is used again instead of mapped anew for each batch, and boxes are drawn in plain
Python instead of with torch's generator: both in its favour. Converting to float and normalising are left out, as everywhere here.
"""

import io
import itertools
import multiprocessing
import multiprocessing.connection
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageOps

from imagenet_jax.bench.task import Square, Task, ViewOf, draw_view

AHEAD = 2  # batches a worker


def version() -> str:
    """Of Pillow."""
    return PIL.__version__


def batches(task: Task) -> Iterator[np.ndarray]:
    """Batches in turn from the workers, valid until the next is asked for."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for number in range(task.cores):
        ours, theirs = context.Pipe()
        memory = context.RawArray("B", AHEAD * task.batch_size * task.size * task.size * 3)
        context.Process(target=_work, args=(task, number, theirs, memory), daemon=True).start()
        theirs.close()
        for slot in range(AHEAD):
            ours.send(slot)
        workers.append((ours, _arrays(memory, task)))
    for pipe, arrays in itertools.cycle(workers):
        slot = pipe.recv()
        yield arrays[slot]
        pipe.send(slot)


def _work(task: Task, worker: int, pipe: multiprocessing.connection.Connection, memory: Any) -> None:
    arrays, images, render = _arrays(memory, task), task.images, square(task)
    for step in itertools.count(worker, task.cores):
        try:
            slot = pipe.recv()
        except EOFError:
            return
        for row in range(task.batch_size):
            number = step * task.batch_size + row
            arrays[slot][row] = render(images[number % len(images)], draw_view(task.size, number))
        pipe.send(slot)


def _arrays(memory: Any, task: Task) -> np.ndarray:
    return np.frombuffer(memory, np.uint8).reshape(AHEAD, task.batch_size, task.size, task.size, 3)


def square(task: Task) -> Square:
    """torchvision's RandomResizedCrop and RandomHorizontalFlip on a Pillow image."""

    def made(data: bytes, view_of: ViewOf) -> np.ndarray:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        view = view_of(image.height, image.width)
        box = image.crop((view.x, view.y, view.x + view.box_width, view.y + view.box_height))
        box = box.resize((view.size, view.size), Image.Resampling.BILINEAR)
        return np.asarray(ImageOps.mirror(box) if view.flip else box)

    return made
