"""From encoded bytes and a view to pixels: decode what the view needs, resize, mirror, into a slot of a batch.

Engines differ in pixels (IDCT, chroma upsampling, resize filters), so a run resolves its engine once, freezes its name and
version and never changes it. Where a JPEG has restart markers at equal distances in every row, all engines decode the crop alone;
`numba` decodes the crop alone of any sequential JPEG.

What the engines agree on: EXIF rotation is not applied (ImageNet's labels and every reference pipeline ignore it), an alpha
channel is dropped and the colour beneath it kept, of 16 bits the upper 8 count, of an animation the first frame. A file that is
cut off is an error; damage within a JPEG's data, which libjpeg only warns of, is not seen (`prepare` cannot see it either).
"""

import functools
import importlib.util
import io
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import PIL
from PIL import Image

from imagenet_jax.data.augmentation.augment import View
from imagenet_jax.data.pixels import resize
from imagenet_jax.data.pixels.jpeg import cut
from imagenet_jax.data.pixels.jpeg import header as headers
from imagenet_jax.errors import UserError, unknown

MAX_PIXELS = 64_000_000  # the default limit; the largest image of ImageNet has 38 million
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
INTERPOLATIONS = ("bilinear", "bicubic")


class Encoded(NamedTuple):
    """An image not decoded yet, and its size as its header says."""

    data: bytes
    height: int
    width: int
    header: headers.Header | None  # of a JPEG whose header could be read


class Engine(NamedTuple):
    """One way to decode and resize; `name` and `version` are recorded in every result."""

    name: str
    version: str
    # (image, y, x, height, width), inside the image -> RGB, uint8 (height, width, 3), which holds until the thread's next crop.
    # Raises ValueError.
    crop: Callable[[Encoded, int, int, int, int], np.ndarray]
    # (image, out, antialias, mirrored): resize it into all of out, uint8 (side, side, 3), C-contiguous.
    resize: Callable[[np.ndarray, np.ndarray, bool, bool], None]
    interpolation: str = "bilinear"


def engine(name: str, interpolation: str = "bilinear") -> Engine:
    """The engine of that name, with the version that is installed. Raises UserError where it is unknown or not installed.

    With `interpolation` "bicubic" Pillow resizes for all of them: weights that were made with it expect its kernel (Keys with
    a = -0.5; OpenCV has -0.75) and its antialiasing.
    """
    if name not in ENGINES:
        raise unknown("decoder", name, ENGINES)
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    cv2.setNumThreads(0)  # the loader has threads of its own; two layers of them fight for the cores
    made = ENGINES[name]()
    if interpolation == "bilinear":
        return made
    version = f"{made.version}, resized by pillow {PIL.__version__}"
    bicubic = functools.partial(resize.by_pillow, resampling=Image.Resampling.BICUBIC)
    return made._replace(version=version, resize=_stored(bicubic), interpolation=interpolation)


def render(
    data: bytes,
    view_of: Callable[[int, int], View],
    engine: Engine,
    antialias: bool,
    out: np.ndarray,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Write the view of one encoded image into `out`, uint8 (size, size, 3), C-contiguous.

    `view_of` gets the image's height and width and returns the view. Raises ValueError where the bytes are no image, or the header
    says that it has more than `max_pixels`.
    """
    image = read_header(data)
    if image.height * image.width > max_pixels:
        raise ValueError(f"it has {image.width} x {image.height} pixels, more than max_pixels={max_pixels:,}")
    view = view_of(image.height, image.width)
    box = _inside(view)
    engine.resize(_padded(engine.crop(image, *box), view), out, antialias, view.flip)


def whole(data: bytes, engine: Engine) -> np.ndarray:
    """All of an encoded image, uint8 (height, width, 3), RGB. Raises ValueError where it is none."""
    image = read_header(data)
    return engine.crop(image, 0, 0, image.height, image.width).copy()


def read_header(data: bytes) -> Encoded:
    """The size of an encoded image, from its header alone: nothing is decoded or allocated. Raises ValueError."""
    if data[:2] == b"\xff\xd8":
        try:
            header = headers.read(data)
            return Encoded(data, header.height, header.width, header)
        except ValueError:  # libjpeg passes over some damage in headers
            pass
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return Encoded(data, image.height, image.width, None)
    except Image.UnidentifiedImageError:
        raise ValueError("no image in it (JPEG, PNG, WebP, GIF or BMP)" if data else "it is empty") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, IndexError and more
        raise ValueError(f"Pillow: {error}") from None


def _inside(view: View) -> tuple[int, int, int, int]:
    """(y, x, height, width) of the box's part inside the image; height or width 0 where there is none."""
    y, x = min(max(0, view.y), view.height), min(max(0, view.x), view.width)
    bottom, right = min(view.height, view.y + view.box_height), min(view.width, view.x + view.box_width)
    return y, x, max(0, bottom - y), max(0, right - x)


def _padded(inside: np.ndarray, view: View) -> np.ndarray:
    """The whole box, black where it lies outside the image."""
    if inside.shape[:2] == (view.box_height, view.box_width):
        return inside
    padded = np.zeros((view.box_height, view.box_width, 3), np.uint8)
    top, left = max(0, -view.y), max(0, -view.x)
    padded[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return padded


def _crop(decode: Callable[[bytes], np.ndarray], image: Encoded, y: int, x: int, height: int, width: int) -> np.ndarray:
    """The crop by a decoder of whole images, which gets a smaller image where one can be cut out."""
    data, header, shape = image.data, image.header, (image.height, image.width)
    if header and cut.possible(header) and height and width:
        data, y, x, *shape = cut.cut(data, header, y, x, height, width)
    pixels = decode(data)
    if pixels.shape[:2] != tuple(shape):
        raise ValueError(f"its header says {shape[1]} x {shape[0]} pixels, it has {pixels.shape[1]} x {pixels.shape[0]}")
    return pixels[y : y + height, x : x + width]


def _by_opencv(data: bytes) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError(f"OpenCV: {error.err}") from None
    if image is None:
        raise ValueError("OpenCV finds no image in it")
    return image


def _by_pillow(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode.startswith("I"):  # 16 bits of grey: Pillow's own conversion clips at 255
                grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # its plugins raise OSError, SyntaxError, struct.error, IndexError and more
        raise ValueError(f"Pillow: {error}") from None


def _stored(resized: Callable[[np.ndarray, int, bool], np.ndarray]) -> Callable[[np.ndarray, np.ndarray, bool, bool], None]:
    """`Engine.resize` of a function (image, side, antialias) -> (side, side, 3)."""

    def store(image: np.ndarray, out: np.ndarray, antialias: bool, mirrored: bool) -> None:
        square = image if image.shape == out.shape else resized(image, len(out), antialias)
        if mirrored:
            cv2.flip(square, 1, dst=out)  # 5 us at 224; out[...] = square[:, ::-1] took 290, and kept the other threads waiting
        else:
            out[...] = square

    return store


def _opencv() -> Engine:
    return Engine("opencv", cv2.__version__, functools.partial(_crop, _by_opencv), _stored(resize.by_opencv))


def _pillow() -> Engine:
    return Engine("pillow", PIL.__version__, functools.partial(_crop, _by_pillow), _stored(resize.by_pillow))


def _numba() -> Engine:
    if importlib.util.find_spec("numba") is None:
        raise UserError("decoder 'numba' needs numba, which is not installed: pip install 'imagenet_jax[fast]', or use 'opencv'.")
    import numba

    from imagenet_jax.data.pixels import linear  # after the check: they import numba
    from imagenet_jax.data.pixels.jpeg import crop as jpeg

    others = _opencv()

    def crop(image: Encoded, y: int, x: int, height: int, width: int) -> np.ndarray:
        if not image.header or not jpeg.supported(image.header) or not height or not width:
            return others.crop(image, y, x, height, width)
        return jpeg.decode_crop(image.data, image.header, y, x, height, width)

    def resized(image: np.ndarray, out: np.ndarray, antialias: bool, mirrored: bool) -> None:
        if antialias:
            image = resize.smoothed(image, len(out))
        if linear.possible(image, out):
            linear.resize(image, out, mirrored)
        else:
            others.resize(image, out, False, mirrored)

    return Engine("numba", f"{numba.__version__} with opencv {cv2.__version__}", crop, resized)


ENGINES: dict[str, Callable[[], Engine]] = {"opencv": _opencv, "numba": _numba, "pillow": _pillow}
