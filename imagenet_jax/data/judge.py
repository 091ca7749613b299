"""One image's bytes, judged by their content: kept as they are, rewritten, or left out with a reason.

What is kept is kept byte for byte. Names are never looked at: the one PNG and the 22 CMYK files in ImageNet are found as any other
such file would be.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

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
    rewritten: str | None = None  # what the image was, where `data` are not the bytes that came
    left_out: str | None = None  # why it cannot be stored


def judge(data: bytes, *, only_jpeg: bool) -> Verdict:
    """Decode `data` in full and say what to store.

    JPEG in grey or RGB stays as it is; so does PNG unless `only_jpeg` (16 bits of grey are rewritten: decoders disagree on them).
    CMYK becomes RGB JPEG (quality 95, chroma at full resolution); all else becomes that too where `only_jpeg`, else PNG, which
    loses nothing but bits past the eighth and frames past the first.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return Verdict(None, left_out=f"too large: {width} x {height} pixels (limit {MAX_PIXELS:,})")
            jpeg = image.format in ("JPEG", "MPO")  # MPO: JPEG from a camera with a second picture behind the first
            keep = image.mode in ("L", "RGB") if jpeg else image.format == "PNG" and image.mode in PNG_MODES and not only_jpeg
            if keep and jpeg:
                # Every coefficient is decoded at any scale, so damage shows all the same; at 1/8, 1125 images/s instead of 574
                # (100 ImageNet JPEGs, 1 core).
                image.draft(None, (1, 1))
            image.load()
            if keep:
                return Verdict(data)
            was = f"{image.mode} {image.format}"
            return Verdict(_encoded(image, as_jpeg=only_jpeg or image.mode == "CMYK"), rewritten=was)
    except Image.UnidentifiedImageError:
        return Verdict(None, left_out="no image (JPEG, PNG, WebP, GIF or BMP)" if data else "no image: the file is empty")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Verdict(None, left_out=f"too large: more than {MAX_PIXELS:,} pixels")
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, IndexError and more
        return Verdict(None, left_out=f"unreadable: {error}")


def _encoded(image: Image.Image, *, as_jpeg: bool) -> bytes:
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow's own conversion clips at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    if as_jpeg:
        image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        transparent = image.has_transparency_data  # kept, as it is in a PNG that is stored as it came
        image.convert("RGBA" if transparent else "RGB").save(buffer, "PNG")
    return buffer.getvalue()
