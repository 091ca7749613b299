"""From encoded bytes and a view to pixels: decode, cut the box, resize, mirror, into a slot of a batch.

Engines differ in pixels (IDCT, chroma upsampling, resize filters), so a run resolves its engine once, freezes its name and
version and never changes it.

What the engines agree on: EXIF rotation is not applied (ImageNet's labels and every reference pipeline ignore it), an alpha
channel is dropped and the colour beneath it kept, of 16 bits the upper 8 count, of an animation the first frame. A file that is
cut off is an error; damage within a JPEG's data, which libjpeg only warns of, is not seen (`prepare` cannot see it either).
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import PIL
from PIL import Image

from imagenet_jax.data.augment import View
from imagenet_jax.errors import unknown


class Engine(NamedTuple):
    """One way to decode and resize; `name` and `version` are recorded in every result."""

    name: str
    version: str
    decode: Callable[[bytes], np.ndarray]  # encoded image -> uint8 (height, width, 3) RGB; raises ValueError
    resize: Callable[[np.ndarray, int, bool], np.ndarray]  # (image, side, antialias) -> uint8 (side, side, 3)


def engine(name: str) -> Engine:
    """The engine of that name, with the version that is installed. Raises UserError for an unknown name."""
    if name not in ENGINES:
        raise unknown("decoder", name, ENGINES)
    return ENGINES[name]()


def render(data: bytes, view_of: Callable[[int, int], View], engine: Engine, antialias: bool, out: np.ndarray) -> None:
    """Write the view of one encoded image into `out`, uint8 (size, size, 3), C-contiguous.

    `view_of` gets the image's height and width and returns the view. Raises ValueError where the bytes are no image.
    """
    image = engine.decode(data)
    view = view_of(image.shape[0], image.shape[1])
    box = _cut(image, view)
    if box.shape[:2] != (view.size, view.size):
        box = engine.resize(box, view.size, antialias)
    if view.flip:
        cv2.flip(box, 1, dst=out)  # 5 us at 224; out[...] = box[:, ::-1] took 290, and kept the other threads waiting
    else:
        out[...] = box


def _cut(image: np.ndarray, view: View) -> np.ndarray:
    bottom, right = view.y + view.box_height, view.x + view.box_width
    inside = image[max(0, view.y) : max(0, bottom), max(0, view.x) : max(0, right)]
    if inside.shape[:2] == (view.box_height, view.box_width):
        return inside
    padded = np.zeros((view.box_height, view.box_width, 3), np.uint8)
    top, left = max(0, -view.y), max(0, -view.x)
    padded[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return padded


def _opencv() -> Engine:
    cv2.setNumThreads(0)  # the loader has threads of its own; two layers of them fight for the cores
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

    def decode(data: bytes) -> np.ndarray:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            raise ValueError(f"OpenCV: {error.err}") from None
        if image is None:
            raise ValueError("OpenCV finds no image in it")
        return image

    def resize(image: np.ndarray, side: int, antialias: bool) -> np.ndarray:
        # INTER_AREA averages over the source pixels that a target pixel covers: 44 dB to Pillow's antialiased bilinear on crops
        # that shrink to 224 (38 dB to 64), where plain INTER_LINEAR aliases (37 dB). It is meant for shrinking only, so a box
        # that shrinks one way and grows the other is resized in two steps (54 dB; 50 in one linear step).
        height, width = image.shape[:2]
        if antialias and max(height, width) > side:
            image = cv2.resize(image, (min(width, side), min(height, side)), interpolation=cv2.INTER_AREA)
        if image.shape[:2] != (side, side):
            image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
        return image

    return Engine("opencv", cv2.__version__, decode, resize)


def _pillow() -> Engine:
    def decode(data: bytes) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.mode.startswith("I"):  # 16 bits of grey: Pillow's own conversion clips at 255
                    grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
                    return np.repeat(grey[:, :, None], 3, axis=2)
                return np.asarray(image.convert("RGB"))
        except MemoryError:
            raise
        except Exception as error:  # its plugins raise OSError, SyntaxError, struct.error, IndexError and more
            raise ValueError(f"Pillow: {error}") from None

    def resize(image: np.ndarray, side: int, antialias: bool) -> np.ndarray:
        source = Image.fromarray(image)
        if antialias:
            return np.asarray(source.resize((side, side), Image.Resampling.BILINEAR))
        box = (0, 0, source.width, source.height)
        return np.asarray(source.transform((side, side), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR))

    return Engine("pillow", PIL.__version__, decode, resize)


ENGINES: dict[str, Callable[[], Engine]] = {"opencv": _opencv, "pillow": _pillow}
