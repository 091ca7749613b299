"""What every contestant is asked for: training views of these images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from imagenet_jax.data import order
from imagenet_jax.data.augmentation import augment
from imagenet_jax.data.reading.records import Source

ViewOf = Callable[[int, int], augment.View]  # (height, width) -> view
Square = Callable[[bytes, ViewOf], np.ndarray]  # -> uint8 (size, size, 3)


class Task(NamedTuple):
    """What a contestant gets."""

    memory: Source  # its records are a list
    stored: Source  # the same images and more, in files
    cores: int
    size: int  # pixels, side of the square
    batch_size: int
    engine: str | None  # of ours, and of those who decode with it; None: the whole way without decoding
    antialias: bool

    @property
    def images(self) -> list[bytes]:
        """Encoded."""
        return [self.memory.read(i).image for i in range(len(self.memory))]


def draw_view(size: int, *key: int) -> ViewOf:
    """The training view of every row that draws it in Python: random resized crop and flip, as torchvision defines them."""

    def view_of(height: int, width: int) -> augment.View:
        draws = order.Draws(*key)
        return augment.flip(augment.random_resized_crop(augment.central(height, width, size, 1.0), draws), draws)

    return view_of
