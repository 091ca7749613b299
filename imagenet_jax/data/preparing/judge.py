"""One image's bytes, judged by their content: what to store of them, or why nothing.

What is kept is kept byte for byte, unless the data set's encoding says otherwise. Names are never looked at: the one PNG and the
22 CMYK files in ImageNet are found as any other such file would be.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from imagenet_jax.data.storage.encoding import PLAIN, Encoding, reencoded
from imagenet_jax.errors import UserError

MAX_BYTES = 256 * 2**20  # of one encoded image
# The largest image of ImageNet has 38 million pixels. The header says how many there are, so a tiny file that would unpack to
# gigabytes is turned away before anything is allocated.
MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
PNG_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # all but 16 bits of grey
JPEG_QUALITY = 95


class Verdict(NamedTuple):
    """What to store. Exactly one of `data` and `left_out` is set."""

    data: bytes | None  # the bytes to store
    rewritten: str | None = None  # what the image was, where it was no grey or RGB JPEG and `data` are not the bytes that came
    left_out: str | None = None  # why it cannot be stored
    unmarked: str | None = None  # why it has no restart markers, where the encoding asks for them


def judge(data: bytes, *, only_jpeg: bool, encoding: Encoding = PLAIN) -> Verdict:
    """Decode `data` in full and say what to store.

    JPEG in grey or RGB stays as it is; so does PNG unless `only_jpeg` (16 bits of grey are rewritten: decoders disagree on them).
    CMYK becomes RGB JPEG (quality 95, chroma at full resolution); all else becomes that too where `only_jpeg`, else PNG, which
    loses nothing but bits past the eighth and frames past the first. An `encoding` that re-encodes makes JPEGs of all of them.
    """
    try:
        verdict = _judged(data, only_jpeg, encoding)
    except Image.UnidentifiedImageError:
        return Verdict(None, left_out="no image (JPEG, PNG, WebP, GIF or BMP)" if data else "no image: the file is empty")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Verdict(None, left_out=f"too large: more than {MAX_PIXELS:,} pixels")
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, IndexError and more
        return Verdict(None, left_out=f"unreadable: {error}")
    return _marked(verdict) if encoding.restart_markers else verdict


def _judged(data: bytes, only_jpeg: bool, encoding: Encoding) -> Verdict:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            return Verdict(None, left_out=f"too large: {width} x {height} pixels (limit {MAX_PIXELS:,})")
        jpeg = image.format in ("JPEG", "MPO")  # MPO: JPEG from a camera with a second picture behind the first
        usual = jpeg and image.mode in ("L", "RGB")
        was = None if usual else f"{image.mode} {image.format}"
        if encoding.reencodes:
            image.load()
            return Verdict(reencoded(grey_or_rgb(image), encoding), rewritten=was)
        keep = usual or (image.format == "PNG" and image.mode in PNG_MODES and not only_jpeg)
        if keep and jpeg:
            # Every coefficient is decoded at any scale, so damage shows all the same; at 1/8, 1125 images/s instead of 574
            # (100 ImageNet JPEGs, 1 core).
            image.draft(None, (1, 1))
        image.load()
        return Verdict(data) if keep else Verdict(_encoded(image, as_jpeg=only_jpeg or image.mode == "CMYK"), rewritten=was)


def grey_or_rgb(image: Image.Image) -> Image.Image:
    """`image` with eight bits a channel, in mode 'L' where it has that, else 'RGB': alpha is dropped, the colour beneath kept."""
    image = _eight_bits(image)
    return image if image.mode == "L" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow's own conversion clips at 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return image


def _encoded(image: Image.Image, *, as_jpeg: bool) -> bytes:
    image = _eight_bits(image)
    buffer = io.BytesIO()
    if as_jpeg:
        image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        transparent = image.has_transparency_data  # kept, as it is in a PNG that is stored as it came
        image.convert("RGBA" if transparent else "RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _marked(verdict: Verdict) -> Verdict:
    if verdict.data is None:
        return verdict
    if not verdict.data.startswith(b"\xff\xd8"):
        return verdict._replace(unmarked="no JPEG")
    from imagenet_jax.data.pixels.jpeg import restart  # numba behind it takes a second to import

    try:
        return verdict._replace(data=restart.add_markers(verdict.data))
    except ValueError as error:
        return verdict._replace(unmarked=str(error))


def check_markers() -> None:
    """Raise UserError where restart markers cannot be made here, before anything is written; compiles what makes them."""
    try:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32)).save(buffer, "JPEG")
        from imagenet_jax.data.pixels.jpeg import restart

        restart.add_markers(buffer.getvalue())
    except ImportError as error:
        raise UserError(f"--restart_markers needs numba ({error}): pip install 'imagenet_jax[prepare]'") from None
