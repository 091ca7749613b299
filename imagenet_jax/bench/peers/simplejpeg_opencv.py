"""simplejpeg (libjpeg-turbo) by hand: full decode, crop, OpenCV's INTER_LINEAR, which does not average where it shrinks."""

from collections.abc import Iterator
from importlib import metadata

import cv2
import numpy as np
import simplejpeg  # pyright: ignore[reportMissingImports]

from imagenet_jax.bench.by_hand import threaded
from imagenet_jax.bench.peers.opencv import cut
from imagenet_jax.bench.task import Square, Task, ViewOf


def version() -> str:
    """Of simplejpeg."""
    return metadata.version("simplejpeg")


def batches(task: Task) -> Iterator[np.ndarray]:
    """The loop by hand."""
    cv2.setNumThreads(0)
    return threaded(task, square(task))


def square(task: Task) -> Square:
    """Decode all with the exact DCT, cut, resize, mirror."""

    def made(data: bytes, view_of: ViewOf) -> np.ndarray:
        return cut(simplejpeg.decode_jpeg(data, "RGB"), view_of)

    return made
