"""Photographs out of files and folders, for prediction: batches of uint8 squares, decoded by threads ahead of the device.

Unlike a data set's, these files may be anything: what does not decode is named and leaves a black square; nothing else stops.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from imagenet_jax.data.augmentation.augment import View, central
from imagenet_jax.data.batches.threads import visible_cores
from imagenet_jax.data.batches.views import Pixels
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.records import AS_THEY_CAME, Record, Source
from imagenet_jax.errors import UserError

T = TypeVar("T")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
VERSION = "photos"  # of every folder of photographs: it has no other
MAX_BYTES = 1 << 28  # of a file; the largest of ImageNet has 15 MB


class Photos(NamedTuple, Generic[T]):
    """A batch. `images` (n, size, size, 3) uint8 is padded with black to the full n; `faults` has None for what decoded."""

    paths: list[T]
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


def open_photos(folder: pathlib.Path) -> Source:
    """All images of a folder, as `find` finds them, as a source without classes. Raises UserError as `find` does."""
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} is no folder.")
    paths = find([folder])
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    listed = "".join(f"{size} {name}\0" for size, name in zip(sizes, names, strict=True))
    digest = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
    records = PhotoRecords(folder.absolute(), names)
    return Source(str(folder.absolute()), VERSION, "", (), digest, AS_THEY_CAME, sum(sizes), records)


def read_file(path: pathlib.Path) -> bytes:
    """A file's content. Raises ValueError where it is no regular file or larger than any photograph, OSError as open does."""
    if path.exists() and not path.is_file():  # a pipe or a device would never end
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return data


@dataclasses.dataclass(frozen=True)
class PhotoRecords:
    """len() and [i] -> Record of the files of a folder, which have no labels: -1."""

    folder: pathlib.Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> Record:
        return Record(read_file(self.folder / self.names[index]), -1, self.names[index])


def batches(
    paths: Sequence[T],
    pixels: Pixels,
    *,
    batch_size: int,
    read: Callable[[T], bytes] = read_file,
    threads: int = 0,
    prefetch: int = 4,
) -> Generator[Photos[T]]:
    """The central view of every file, in order, `prefetch` batches ahead; closing the iterator stops the threads.

    `paths` may be anything that `read`, called by the threads, turns into encoded bytes; its ValueError and OSError are faults.
    """
    pool = ThreadPoolExecutor(threads or visible_cores(), thread_name_prefix="decode")
    under_way: collections.deque[tuple[list[T], np.ndarray, list[Future[str | None]]]] = collections.deque()

    def finished() -> Photos[T]:
        chosen, images, tasks = under_way.popleft()
        return Photos(chosen, images, [task.result() for task in tasks])

    try:
        for first in range(0, len(paths), batch_size):
            chosen = list(paths[first : first + batch_size])
            images = np.zeros((batch_size, pixels.image_size, pixels.image_size, 3), np.uint8)
            under_way.append((chosen, images, [pool.submit(_fill, read, p, pixels, slot) for p, slot in _pairs(chosen, images)]))
            if len(under_way) > prefetch:
                yield finished()
        while under_way:
            yield finished()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pairs(paths: list[T], images: np.ndarray) -> Iterable[tuple[T, np.ndarray]]:
    return zip(paths, images, strict=False)


def _fill(read: Callable[[T], bytes], path: T, pixels: Pixels, out: np.ndarray) -> str | None:
    """Decode the file's central view into `out`; what is wrong with it, or None."""
    try:
        view(read(path), pixels, out)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        out[...] = 0
        return str(error)
    return None


def view(data: bytes, pixels: Pixels, out: np.ndarray) -> None:
    """Write the central view of an encoded image into `out`, uint8 (size, size, 3). Raises ValueError where it does not decode."""

    def central_of(height: int, width: int) -> View:
        return central(height, width, len(out), pixels.crop_ratio)

    decode.render(data, central_of, pixels.engine, pixels.antialias, out, pixels.max_pixels)
