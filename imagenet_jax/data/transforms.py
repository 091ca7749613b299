"""What changes the colours of a finished training square, or covers a part of it: the pixel half of an augmentation.

A transform is a function (image, draws, its settings) -> image, both uint8 (size, size, 3) RGB; it may write into the array that it
gets or return another. All randomness comes from `draws`, as in augment.py. OpenCV does the work.
"""

from collections.abc import Callable

import cv2
import numpy as np

from imagenet_jax.data.order import Draws


def greyscale(image: np.ndarray, draws: Draws, *, probability: float = 0.1) -> np.ndarray:
    """With `probability`, the luma of ITU-R 601 in all three channels (torchvision's RandomGrayscale)."""
    if draws.uniform() >= probability:
        return image
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB, dst=image)


TRANSFORMS: dict[str, Callable[..., np.ndarray]] = {
    "greyscale": greyscale,
}
