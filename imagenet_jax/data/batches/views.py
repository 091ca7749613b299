"""What the rows of a batch show: which example, where to look, and what becomes of the square. Pure functions of the step.

threads.py makes the pixels.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np

from imagenet_jax.data import order
from imagenet_jax.data.augmentation.augment import Chain, View, central
from imagenet_jax.data.pixels import decode

Sizes = tuple[tuple[int, int], ...]  # sides of the squares: ((from this step on, pixels), ...), the first from step 0


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


def side_at(step: int, sizes: Sizes, pixels: Pixels) -> int:
    """The side of the squares of that step."""
    return next((side for begin, side in reversed(sizes) if begin <= step), pixels.image_size)
