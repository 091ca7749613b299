"""Where a view looks: which box of an image it shows, and whether mirrored. Geometry only; decode.py makes the pixels.

An augmentation is a function (view, draws, its settings) -> view; a training view is the list of them in the config, followed by
those of transforms.py, which work on the finished pixels. All randomness comes from `draws`, which is keyed on (seed, epoch,
example id, view number).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.data.augmentation import policies
from imagenet_jax.data.augmentation.transforms import TRANSFORMS
from imagenet_jax.data.order import Draws
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.settings import check


class View(NamedTuple):
    """A box in pixels of the image, to be resized to the model's square; parts outside the image are black."""

    height: int  # of the image
    width: int
    size: int  # side of the square that the model sees
    y: int
    x: int
    box_height: int
    box_width: int
    flip: bool = False


def central(height: int, width: int, size: int, crop_ratio: float) -> View:
    """The evaluation view: the central square whose side is `crop_ratio` of the short side.

    The region that torchvision's Resize(size / crop_ratio) and CenterCrop(size) show, to about a pixel of the image, in one resize
    instead of a resize and a cut. The side is rounded down, as by EfficientNet's code and flax's: with the nearest number published
    EfficientNet-Lite0 decides otherwise on 5 of 545 photographs, and so on none.
    """
    side = max(1, math.floor(crop_ratio * min(height, width) + 1e-6))  # 224 / 236 * 236 is a little less than 224
    return View(height, width, size, (height - side + 1) // 2, (width - side + 1) // 2, side, side)


def random_resized_crop(
    view: View, draws: Draws, *, area: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> View:
    """A box of random size and shape anywhere in the image (Szegedy et al. 2015, section 6; torchvision's RandomResizedCrop).

    Ten tries at an area in `area` (share of the image) and an aspect ratio (width / height) log-uniform in `ratio`; failing
    all, the largest centred box whose ratio lies in `ratio`.
    """
    policies.check("random_resized_crop: area", area[0], 0, 1)
    policies.check("random_resized_crop: area", area[1], area[0], 1)
    policies.check("random_resized_crop: ratio", ratio[0], 1e-3, ratio[1])
    height, width = view.height, view.width
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        pixels = height * width * draws.uniform(*area)
        aspect = math.exp(draws.uniform(low, high))
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            return view._replace(y=draws.integer(0, height - h), x=draws.integer(0, width - w), box_height=h, box_width=w)
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return view._replace(y=(height - h) // 2, x=(width - w) // 2, box_height=h, box_width=w)


def pad_crop(view: View, draws: Draws, *, padding: int = 4) -> View:
    """Shift the box by up to `padding` pixels of the model's square each way; black comes in at the edge.

    For a view of the whole image this is the CIFAR augmentation (He et al. 2015, section 4.2): pad by 4, cut at random.
    """
    policies.check("pad_crop: padding", padding, 0, math.inf)
    dy, dx = draws.integer(-padding, padding), draws.integer(-padding, padding)
    return view._replace(y=view.y + round(dy * view.box_height / view.size), x=view.x + round(dx * view.box_width / view.size))


def flip(view: View, draws: Draws, *, probability: float = 0.5, alternating: bool = False) -> View:
    """Mirror left and right with `probability`, or, `alternating`, every other time that an image comes.

    Then two epochs in a row show both sides of all images (Jordan 2024, arXiv 2404.00498, section 3.6).
    """
    if alternating:
        return view._replace(flip=view.flip ^ bool(draws.phase))
    return view._replace(flip=view.flip ^ (draws.uniform() < probability))


AUGMENTATIONS: dict[str, Callable[..., View]] = {
    "random_resized_crop": random_resized_crop,
    "pad_crop": pad_crop,
    "flip": flip,
}


class Chain(NamedTuple):
    """A training view: first where it looks, then what becomes of its pixels, both with one stream of draws."""

    geometry: tuple[Callable[..., View], ...]
    transforms: tuple[Callable[..., np.ndarray], ...]

    @property
    def has_pixels(self) -> bool:
        """Whether `pixels` does anything."""
        return bool(self.transforms)

    def view(self, view: View, draws: Draws) -> View:
        """Where to look, starting from `view`."""
        for function in self.geometry:
            view = function(view, draws)
        return view

    def pixels(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        """The transformed image, uint8 (size, size, 3) as `image`, which may be overwritten. Draw the view first."""
        for function in self.transforms:
            image = function(image, draws)
        return image


def chain(augment: Sequence[tuple[str, dict[str, Any]]]) -> Chain:
    """The config's list of (name, settings) as one object. Raises UserError for an unknown name or setting, or a wrong form."""
    geometry, transforms = [], []
    for entry in augment:
        if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], dict)):
            raise UserError(f"augment has the entry {entry!r}; wanted: (name, {{settings}}), such as ('flip', {{}}).")
        name, settings = entry
        function = AUGMENTATIONS.get(name) or TRANSFORMS.get(name)
        if function is None:
            raise unknown("augmentation", name, {**AUGMENTATIONS, **TRANSFORMS})
        if function is random_resized_crop and (geometry or transforms):
            raise UserError("random_resized_crop chooses the box anew, so it must stand first in config.augment.")
        if name in AUGMENTATIONS and transforms:
            raise UserError(f"{name} chooses where to look, so it must stand before all that changes pixels in config.augment.")
        check(f"augmentation {name!r}", settings, function.__kwdefaults__ or {})
        if "probability" in settings:
            policies.check(f"{name}: probability", settings["probability"], 0, 1)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        (geometry if name in AUGMENTATIONS else transforms).append(functools.partial(function, **settings))
    made = Chain(tuple(geometry), tuple(transforms))
    made.view(central(32, 32, 32, 1.0), Draws(0))
    made.pixels(np.zeros((32, 32, 3), np.uint8), Draws(0))  # settings out of range are refused here, not in the middle of a run
    return made
