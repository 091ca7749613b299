"""How close a contestant's pixels are to Pillow's: full decode, crop, and its antialiased bilinear resize."""

import io
import math
from typing import Any

import numpy as np
from PIL import Image

from imagenet_jax.bench.task import Square, draw_view
from imagenet_jax.data.augmentation.augment import View

SHRINKS = (
    1.3  # crops this much larger than the square on both sides count as shrinking: there a resize that does not average aliases
)
IDENTICAL = 99.0  # dB, stands for infinity, which JSON lacks; one grey level in one of 10,000 values is 88 dB


def measure(square: Square, images: list[bytes], size: int, crops: int) -> dict[str, Any]:
    """PSNR in dB over `crops` training crops (not mirrored) of `images`, in turn.

    Keys: median, p5 (5th percentile), n; the same for crops that shrink: shrinking_median, shrinking_p5, shrinking_n. Median and p5
    are None where n is 0.
    """
    values, shrinking = [], []
    for number in range(crops):
        data = images[number % len(images)]
        with Image.open(io.BytesIO(data)) as image:
            view = draw_view(size, 1, number)(image.height, image.width)._replace(flip=False)
            wanted = reference(image, view)
        values.append(psnr(square(data, lambda height, width, view=view: view), wanted))
        shrinking.append(min(view.box_height, view.box_width) >= SHRINKS * size)
    found = _summary(values), _summary([v for v, s in zip(values, shrinking, strict=True) if s])
    return found[0] | {f"shrinking_{key}": value for key, value in found[1].items()}


def reference(image: Image.Image, view: View) -> np.ndarray:
    """torchvision's and timm's pixels of a view: uint8 (size, size, 3)."""
    box = (view.x, view.y, view.x + view.box_width, view.y + view.box_height)
    return np.asarray(image.convert("RGB").crop(box).resize((view.size, view.size), Image.Resampling.BILINEAR))


def psnr(image: np.ndarray, wanted: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 arrays of one shape, in dB: 10 log10(255^2 / mean squared difference)."""
    error = float(np.mean((image.astype(np.float64) - wanted) ** 2))
    return min(IDENTICAL, 10 * math.log10(255**2 / error)) if error else IDENTICAL


def _summary(values: list[float]) -> dict[str, Any]:
    median, p5 = np.percentile(values, (50, 5)).tolist() if values else (None, None)
    return {"median": median, "p5": p5, "n": len(values)}
