"""OpenCV by hand: full decode, crop, INTER_LINEAR, which does not average where it shrinks."""

from collections.abc import Iterator

import cv2
import numpy as np

from imagenet_jax.bench.by_hand import threaded
from imagenet_jax.bench.task import Square, Task, ViewOf

FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def version() -> str:
    """Of OpenCV."""
    return cv2.__version__


def batches(task: Task) -> Iterator[np.ndarray]:
    """The loop by hand."""
    cv2.setNumThreads(0)  # threads are the loop's
    return threaded(task, square(task))


def square(task: Task) -> Square:
    """Decode all, cut, resize, mirror."""

    def made(data: bytes, view_of: ViewOf) -> np.ndarray:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), FLAGS)
        if image is None:
            raise ValueError("OpenCV does not decode an image of this data set")
        return cut(image, view_of)

    return made


def cut(image: np.ndarray, view_of: ViewOf) -> np.ndarray:
    """The view of a decoded image, by INTER_LINEAR."""
    view = view_of(image.shape[0], image.shape[1])
    box = image[view.y : view.y + view.box_height, view.x : view.x + view.box_width]
    box = cv2.resize(box, (view.size, view.size), interpolation=cv2.INTER_LINEAR)
    return cv2.flip(box, 1) if view.flip else box
