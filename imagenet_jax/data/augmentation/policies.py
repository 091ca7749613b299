"""RandAugment, TrivialAugment and AutoAugment: which operation of operations.py comes next, and how strong it is.

A policy draws names of operations. A space says how far each goes at strength 1 in an image of a given side; strengths lie in
0 .. 1, and operations in SIGNED go either way, at even odds. Corners that a turn or shift leaves empty get the colour `fill`.
"""

from collections.abc import Callable

import numpy as np

from imagenet_jax.data.augmentation import operations as ops
from imagenet_jax.data.order import Draws
from imagenet_jax.errors import UserError

OPERATIONS: dict[str, Callable[[np.ndarray, float, ops.Warp], np.ndarray]] = {
    "identity": lambda image, amount, warp: image,
    "shear_x": lambda image, amount, warp: warp(image, 1, amount, 0, 0, 1, 0),
    "shear_y": lambda image, amount, warp: warp(image, 1, 0, 0, amount, 1, 0),
    "translate_x": lambda image, amount, warp: warp(image, 1, 0, -int(amount), 0, 1, 0),
    "translate_y": lambda image, amount, warp: warp(image, 1, 0, 0, 0, 1, -int(amount)),
    "rotate": lambda image, amount, warp: warp.rotate(image, amount),
    "brightness": lambda image, amount, warp: ops.brightness(image, 1 + amount),
    "saturation": lambda image, amount, warp: ops.saturation(image, 1 + amount),
    "contrast": lambda image, amount, warp: ops.contrast(image, 1 + amount),
    "sharpness": lambda image, amount, warp: ops.sharpness(image, 1 + amount),
    "posterize": lambda image, amount, warp: ops.posterize(image, 8 - round(amount)),
    "solarize": lambda image, amount, warp: ops.solarize(image, 255 - amount),
    "autocontrast": lambda image, amount, warp: ops.autocontrast(image),
    "equalize": lambda image, amount, warp: ops.equalize(image),
    "invert": lambda image, amount, warp: ops.invert(image),
    # timm rounds these differently.
    "slide_x": lambda image, amount, warp: warp(image, 1, 0, -amount, 0, 1, 0),
    "slide_y": lambda image, amount, warp: warp(image, 1, 0, 0, 0, 1, -amount),
    "posterize_low": lambda image, amount, warp: ops.posterize(image, 4 - int(amount)),
    "solarize_low": lambda image, amount, warp: ops.solarize(image, 256 - int(amount)),
    "solarize_add": lambda image, amount, warp: ops.solarize_add(image, int(amount)),
}
_GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "slide_x", "slide_y", "rotate")
SIGNED = frozenset((*_GEOMETRIC, "brightness", "saturation", "contrast", "sharpness"))


def standard(side: int) -> dict[str, float]:
    """What RandAugment and, with invert, AutoAugment draw from, and how far it goes (torchvision)."""
    return {
        "identity": 0,
        "shear_x": 0.3,
        "shear_y": 0.3,
        "translate_x": 150 / 331 * side,
        "translate_y": 150 / 331 * side,
        "rotate": 30,
        "brightness": 0.9,
        "saturation": 0.9,
        "contrast": 0.9,
        "sharpness": 0.9,
        "posterize": 4,
        "solarize": 255,
        "autocontrast": 0,
        "equalize": 0,
    }


def wide(side: int) -> dict[str, float]:
    """The same operations, further (Müller and Hutter 2021, table 1, "Wide")."""
    further = {"shear_x": 0.99, "shear_y": 0.99, "translate_x": 32, "translate_y": 32, "rotate": 135, "posterize": 6}
    return standard(side) | further | dict.fromkeys(("brightness", "saturation", "contrast", "sharpness"), 0.99)


def increasing(side: int) -> dict[str, float]:
    """timm's operations for RandAugment, each stronger with the magnitude (its `inc1`)."""
    replaced = ("identity", "translate_x", "translate_y", "posterize", "solarize")
    kept = {name: most for name, most in standard(side).items() if name not in replaced}
    own = {"posterize_low": 4, "solarize_low": 256, "solarize_add": 110, "invert": 0}
    return kept | {"slide_x": 0.45 * side, "slide_y": 0.45 * side} | own


# The best policy found on ImageNet (Cubuk et al. 2018, table 9): operation, probability, level of 0 .. 9.
AUTO_AUGMENT = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("saturation", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("saturation", 1.0, 2)),
    (("saturation", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("saturation", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)

RGB = tuple[int, int, int]
BLACK, GREY = (0, 0, 0), (124, 116, 104)  # GREY is ImageNet's mean


def rand_augment(
    image: np.ndarray,
    draws: Draws,
    *,
    num_ops: int = 2,
    magnitude: int = 9,
    bins: int = 31,
    interpolation: str = "bilinear",
    fill: RGB = BLACK,
) -> np.ndarray:
    """`num_ops` operations of `standard`, drawn with replacement, at strength magnitude / (bins - 1).

    Cubuk et al. 2019, as torchvision has it: `bins` magnitudes, 0 .. bins - 1. Its class defaults to nearest pixels, its training
    reference to bilinear.
    """
    check("rand_augment: magnitude", magnitude, 0, bins - 1)
    warp, space = ops.Warp(interpolation, fill), standard(len(image))
    for _ in range(num_ops):
        image = _apply(image, draws, _choose(space, draws), magnitude / (bins - 1), space, warp)
    return image


def rand_augment_timm(
    image: np.ndarray,
    draws: Draws,
    *,
    num_ops: int = 2,
    magnitude: float = 9.0,
    magnitude_std: float = 0.5,
    probability: float = 0.5,
    interpolation: str = "bilinear",
    fill: RGB = GREY,
) -> np.ndarray:
    """timm's rand-m{magnitude}-n{num_ops}-mstd{magnitude_std}-inc1: DeiT's, ConvNeXt's and most later recipes'.

    `num_ops` operations of `increasing`, drawn with replacement, each applied with `probability` at a tenth of a magnitude that is
    normal around `magnitude` and cut to 0 .. 10. (timm draws bilinear or bicubic at random unless told; DeiT says bicubic.)
    """
    check("rand_augment_timm: magnitude", magnitude, 0, 10)
    warp, space = ops.Warp(interpolation, fill), increasing(len(image))
    for _ in range(num_ops):
        name = _choose(space, draws)
        if draws.uniform() < probability:
            strength = min(max(magnitude + magnitude_std * draws.normal(), 0), 10) / 10
            image = _apply(image, draws, name, strength, space, warp)
    return image


def trivial_augment(
    image: np.ndarray, draws: Draws, *, bins: int = 31, interpolation: str = "bilinear", fill: RGB = BLACK
) -> np.ndarray:
    """TrivialAugment Wide: one operation of `wide` at one of `bins` strengths (Müller and Hutter 2021, algorithm 1)."""
    check("trivial_augment: bins", bins, 2, 256)
    space = wide(len(image))
    name, strength = _choose(space, draws), draws.integer(0, bins - 1) / (bins - 1)
    return _apply(image, draws, name, strength, space, ops.Warp(interpolation, fill))


def auto_augment(image: np.ndarray, draws: Draws, *, interpolation: str = "bilinear", fill: RGB = BLACK) -> np.ndarray:
    """One of the 25 pairs of AUTO_AUGMENT, each operation with its probability (Cubuk et al. 2018, as torchvision has it)."""
    warp, space = ops.Warp(interpolation, fill), standard(len(image)) | {"invert": 0}
    for name, probability, level in AUTO_AUGMENT[draws.integer(0, len(AUTO_AUGMENT) - 1)]:
        if draws.uniform() < probability:
            image = _apply(image, draws, name, level / 9, space, warp)
    return image


def _choose(space: dict[str, float], draws: Draws) -> str:
    return tuple(space)[draws.integer(0, len(space) - 1)]


def _apply(image: np.ndarray, draws: Draws, name: str, strength: float, space: dict[str, float], warp: ops.Warp) -> np.ndarray:
    amount = strength * space[name]
    if name in SIGNED and draws.integer(0, 1):
        amount = -amount
    return OPERATIONS[name](image, amount, warp)


def check(name: str, value: float, low: float, high: float) -> None:
    """Raise UserError for a setting that does not lie in low .. high."""
    if not low <= value <= high:
        raise UserError(f"augment: {name}={value} must lie in {low:g} .. {high:g}.")
