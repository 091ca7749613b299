"""The quickstart data set: scikit-learn's 1,797 handwritten digits (8x8, UCI optdigits test set), as a class-per-folder tree."""

import pathlib

import numpy as np
from PIL import Image

from imagenet_jax.errors import UserError

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZE = 32  # pixels a side
VALIDATION_SHARE = 0.2


def write_tree(root: pathlib.Path) -> None:
    """Write each digit as root/CLASS/NNNN.png, grey, 32x32 (bicubic from 8x8); NNNN is its index in scikit-learn's order.

    Raises UserError where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("digits come with scikit-learn, which is not installed: pip install 'imagenet_jax[quickstart]'") from None
    images, labels = load_digits(return_X_y=True)
    for name in CLASSES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        grey = np.round(image.reshape(8, 8) * (255 / 16)).astype(np.uint8)  # stored as 0..16
        large = Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        large.save(root / CLASSES[label] / f"{index:04d}.png")
