"""How a prepared data set stores its images: as they came, or smaller, or with restart markers. A choice that is never silent.

It is part of the data set's name (imagenet2012/short256_q90_rst), of its metadata and by that of the data fingerprint.
"""

import dataclasses
import io
import re

from PIL import Image

from imagenet_jax.errors import UserError

QUALITY = 90  # of re-encoded JPEG, where none is asked for


@dataclasses.dataclass(frozen=True)
class Encoding:
    """The choice; at most one side is set, and `quality` together with it. `Encoding()` stores images as they came.

    Re-encoding makes every image a JPEG of that quality, chroma at half resolution (4:2:0), grey images grey. Restart markers
    are put into baseline JPEGs without changing a pixel (jpeg/restart.py).
    """

    short_side: int | None = None  # pixels of the shorter side of a larger image; none is ever enlarged
    max_side: int | None = None  # pixels of the longer side of a larger image
    quality: int | None = None
    restart_markers: bool = False

    def __post_init__(self) -> None:
        sides = [side for side in (self.short_side, self.max_side) if side is not None]
        if len(sides) > 1:
            raise UserError("--short_side and --max_side exclude each other: choose one.")
        if not all(16 <= side <= 16384 for side in sides):
            raise UserError(f"A side of {sides[0]} pixels is out of range: use 16 to 16384.")
        if bool(sides) != (self.quality is not None):
            raise UserError("--quality is of re-encoded images: it goes with --short_side or --max_side.")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"--quality={self.quality} is no JPEG quality: use 1 to 100.")

    @property
    def reencodes(self) -> bool:
        """Whether pixels change."""
        return self.quality is not None

    @property
    def config(self) -> str | None:
        """What tfds calls the data set's config, such as 'short256_q90_rst'; None where images are stored as they came."""
        parts = {"short": self.short_side, "max": self.max_side, "_q": self.quality}
        name = "".join(f"{key}{value}" for key, value in parts.items() if value) + "_rst" * self.restart_markers
        return name.lstrip("_") or None

    def __str__(self) -> str:
        side = f"short side {self.short_side}" if self.short_side else f"longer side {self.max_side}"
        resized = f"{side} at most, JPEG quality {self.quality}" if self.reencodes else "pixels as they came"
        return resized + ", restart markers" * self.restart_markers


PLAIN = Encoding()


def is_config(name: str) -> bool:
    """Whether `Encoding.config` gives such a name."""
    return re.fullmatch(r"(short|max)\d+_q\d+(_rst)?|rst", name) is not None


def choose(short_side: int | None, max_side: int | None, quality: int | None, restart_markers: bool) -> Encoding:
    """The encoding for a user's flags: quality 90 where a side is given and no quality. Raises UserError where they disagree."""
    if quality is None and (short_side is not None or max_side is not None):
        quality = QUALITY
    return Encoding(short_side, max_side, quality, restart_markers)


def shrunk(image: Image.Image, encoding: Encoding) -> Image.Image:
    """`image` ('L' or 'RGB') at the encoding's size; itself where it is no larger. Lanczos with antialiasing (Pillow's)."""
    width, height = image.size
    if encoding.short_side:
        scale = encoding.short_side / min(width, height)
    elif encoding.max_side:
        scale = encoding.max_side / max(width, height)
    else:
        return image
    if scale >= 1:
        return image
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)


def reencoded(image: Image.Image, encoding: Encoding) -> bytes:
    """`image` ('L' or 'RGB') as a JPEG of the encoding's size and quality, without EXIF and colour profile."""
    buffer = io.BytesIO()
    shrunk(image, encoding).save(buffer, "JPEG", quality=encoding.quality, subsampling="4:2:0")
    return buffer.getvalue()
