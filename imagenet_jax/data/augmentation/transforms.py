"""What changes the colours of a finished training square, or covers a part of it: the pixel half of an augmentation.

A transform is a function (image, draws, its settings) -> image, both uint8 (size, size, 3) RGB; it may write into the array that it
gets or return another. All randomness comes from `draws`, as in augment.py.
"""

import functools
import math
import statistics
from collections.abc import Callable

import cv2
import numpy as np

from imagenet_jax.data.augmentation import operations as ops
from imagenet_jax.data.augmentation import policies
from imagenet_jax.data.augmentation.policies import check
from imagenet_jax.data.order import Draws
from imagenet_jax.errors import unknown

RGB = tuple[float, float, float]


def colour_jitter(
    image: np.ndarray,
    draws: Draws,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.0,
    probability: float = 1.0,
) -> np.ndarray:
    """With `probability`, change each of the four, in random order (torchvision's ColorJitter).

    Factors of the first three are uniform in 1 - s .. 1 + s (not below 0) for the setting s, the turn of the hue in -hue .. hue of
    a circle. 0 leaves one out.
    """
    check("colour_jitter: brightness, contrast or saturation", min(brightness, contrast, saturation), 0, math.inf)
    check("colour_jitter: hue", hue, 0, 0.5)
    if draws.uniform() >= probability:
        return image
    changes = ((ops.brightness, brightness), (ops.contrast, contrast), (ops.saturation, saturation), (ops.hue, hue))
    for i in draws.permutation(4):
        change, most = changes[i]
        if change is ops.hue and most:
            image = ops.hue(image, draws.uniform(-most, most))
        elif most:
            image = change(image, draws.uniform(max(0, 1 - most), 1 + most))
    return image


def greyscale(image: np.ndarray, draws: Draws, *, probability: float = 0.1) -> np.ndarray:
    """Without colour, with `probability` (torchvision's RandomGrayscale)."""
    return ops.greyscale(image) if draws.uniform() < probability else image


def solarize(image: np.ndarray, draws: Draws, *, threshold: float = 128.0, probability: float = 0.5) -> np.ndarray:
    """255 - x where x is at least `threshold`, with `probability` (torchvision's RandomSolarize)."""
    return ops.solarize(image, threshold) if draws.uniform() < probability else image


def gaussian_blur(
    image: np.ndarray, draws: Draws, *, sigma: tuple[float, float] = (0.1, 2.0), probability: float = 0.5
) -> np.ndarray:
    """Blurred, with `probability`, by a Gaussian whose deviation is uniform in `sigma` pixels (Chen et al. 2020, appendix A)."""
    check("gaussian_blur: sigma", sigma[0], 1e-3, sigma[1])
    return ops.gaussian_blur(image, draws.uniform(*sigma)) if draws.uniform() < probability else image


def three_augment(image: np.ndarray, draws: Draws, *, jitter: float = 0.3, sigma: tuple[float, float] = (0.1, 2.0)) -> np.ndarray:
    """One of greyscale, solarize and blur; then brightness, contrast and saturation jitter (DeiT III, Touvron et al. 2022)."""
    one = (greyscale, solarize, functools.partial(gaussian_blur, sigma=sigma))[draws.integer(0, 2)]
    return colour_jitter(one(image, draws, probability=1.0), draws, brightness=jitter, contrast=jitter, saturation=jitter)


def random_erasing(
    image: np.ndarray,
    draws: Draws,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
    fill: str = "mean",
    mean: RGB = (0.485, 0.456, 0.406),
    std: RGB = (0.229, 0.224, 0.225),
) -> np.ndarray:
    """Cover a rectangle, with `probability` (Zhong et al. 2017, algorithm 1; ten tries and log-uniform ratios as in torchvision).

    Its area is uniform in `area` (share of the image), its ratio height / width log-uniform in `ratio`. `fill` is "mean", the
    colour `mean` (0 once normalised), or "noise", pixels normal with `mean` and `std` (of 0..1; standard normal once normalised,
    but for the 3 % beyond black and white). Raises UserError for another.
    """
    if fill not in ("mean", "noise"):
        raise unknown("fill of random_erasing", fill, ("mean", "noise"))
    check("random_erasing: area", area[0], 0, area[1])
    check("random_erasing: ratio", ratio[0], 1e-3, ratio[1])
    if draws.uniform() >= probability:
        return image
    height, width = image.shape[:2]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        pixels, aspect = height * width * draws.uniform(*area), math.exp(draws.uniform(low, high))
        h, w = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < h < height and 0 < w < width:
            y, x = draws.integer(0, height - h), draws.integer(0, width - w)
            if fill == "noise":
                image[y : y + h, x : x + w] = cv2.LUT(draws.bytes(h * w * 3).reshape(h, w, 3), _normal(mean, std))
            else:
                cv2.rectangle(image, (x, y, w, h), [round(255 * m) for m in mean], cv2.FILLED)
            break
    return image


def translate(image: np.ndarray, draws: Draws, *, padding: int = 2) -> np.ndarray:
    """Moved by up to `padding` pixels each way; reflected pixels come in at the edge (arXiv 2404.00498, section 3.1)."""
    height, width = image.shape[:2]
    check("translate: padding", padding, 0, 31)
    padded = cv2.copyMakeBorder(image, padding, padding, padding, padding, cv2.BORDER_REFLECT_101)
    y, x = draws.integer(0, 2 * padding), draws.integer(0, 2 * padding)
    return np.ascontiguousarray(padded[y : y + height, x : x + width])


@functools.cache
def _normal(mean: RGB, std: RGB) -> np.ndarray:
    """Random byte -> level of a normal channel, uint8 (1, 256, 3): its quantiles, in 256 steps of equal probability."""
    levels = [[statistics.NormalDist(m, s).inv_cdf((i + 0.5) / 256) for m, s in zip(mean, std, strict=True)] for i in range(256)]
    return (255 * np.array(levels)).round().clip(0, 255).astype(np.uint8)[None]


TRANSFORMS: dict[str, Callable[..., np.ndarray]] = {
    "rand_augment": policies.rand_augment,
    "rand_augment_timm": policies.rand_augment_timm,
    "trivial_augment": policies.trivial_augment,
    "auto_augment": policies.auto_augment,
    "three_augment": three_augment,
    "colour_jitter": colour_jitter,
    "greyscale": greyscale,
    "solarize": solarize,
    "gaussian_blur": gaussian_blur,
    "random_erasing": random_erasing,
    "translate": translate,
}
