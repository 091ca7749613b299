"""Photographs out of files and folders, for prediction: batches of uint8 squares, decoded by threads ahead of the device.

Unlike a data set's, these files may be anything: what does not decode is named and leaves a black square; nothing else stops.
"""

import collections
import os
import pathlib
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from imagenet_jax.data import decode
from imagenet_jax.data.augment import View, central
from imagenet_jax.data.loader import Pixels, visible_cores
from imagenet_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
MAX_BYTES = 1 << 28  # of a file; the largest of ImageNet has 15 MB


class Photos(NamedTuple):
    """A batch. `images` (n, size, size, 3) uint8 is padded with black to the full n; `faults` has None for what decoded."""

    paths: list[pathlib.Path]
    images: np.ndarray
    faults: list[str | None]


def find(places: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """All images of files and folders, in the order given and of their names; of a folder, by suffix, and no links to folders.

    Raises UserError for a place that is not there and where there is no image at all.
    """
    found: list[pathlib.Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(
                pathlib.Path(folder) / name
                for folder, _, names in os.walk(place)
                for name in names
                if name.lower().endswith(SUFFIXES)
            )  # fmt: skip
        elif place.is_file():
            found.append(place)
        else:
            raise UserError(f"{str(place)!r} is neither a file nor a folder.")
    if not found:
        raise UserError(f"No image in {', '.join(repr(str(p)) for p in places)}. Looked for: {', '.join(SUFFIXES)}.")
    return found


def batches(
    paths: Sequence[pathlib.Path], pixels: Pixels, *, batch_size: int, threads: int = 0, prefetch: int = 4
) -> Generator[Photos]:
    """The central view of every file, in order, `prefetch` batches ahead; closing the iterator stops the threads."""
    pool = ThreadPoolExecutor(threads or visible_cores(), thread_name_prefix="decode")
    under_way: collections.deque[tuple[list[pathlib.Path], np.ndarray, list[Future[str | None]]]] = collections.deque()

    def finished() -> Photos:
        chosen, images, tasks = under_way.popleft()
        return Photos(chosen, images, [task.result() for task in tasks])

    try:
        for first in range(0, len(paths), batch_size):
            chosen = list(paths[first : first + batch_size])
            images = np.zeros((batch_size, pixels.image_size, pixels.image_size, 3), np.uint8)
            under_way.append((chosen, images, [pool.submit(_fill, p, pixels, slot) for p, slot in _pairs(chosen, images)]))
            if len(under_way) > prefetch:
                yield finished()
        while under_way:
            yield finished()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pairs(paths: list[pathlib.Path], images: np.ndarray) -> Iterable[tuple[pathlib.Path, np.ndarray]]:
    return zip(paths, images, strict=False)


def _fill(path: pathlib.Path, pixels: Pixels, out: np.ndarray) -> str | None:
    """Decode the file's central view into `out`; what is wrong with it, or None."""

    def view_of(height: int, width: int) -> View:
        return central(height, width, pixels.image_size, pixels.crop_ratio)

    try:
        if not path.is_file():  # a pipe or a device would never end
            return "it is no regular file"
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return f"it has more than {MAX_BYTES:,} bytes"
        decode.render(data, view_of, pixels.engine, pixels.antialias, out, pixels.max_pixels)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        out[...] = 0
        return str(error)
    return None
