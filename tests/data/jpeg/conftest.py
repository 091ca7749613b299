"""JPEGs of every kind, made on the spot."""

import io
import tarfile

import cv2
import numpy as np
import pytest
from PIL import Image


def picture(height, width, seed):
    """Smooth colours, one sharp edge and some noise: uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    random = np.random.default_rng(seed)
    channels = [128 + 90 * np.sin(x / 9 + y / 17), 60 + x * 120 / width + y * 70 / height, 128 + 90 * np.cos(y / 11)]
    image = np.stack(channels, -1) + random.normal(0, 6, (height, width, 3))
    image[height // 3 : height // 2, width // 4 :] = random.integers(0, 256, 3)
    return image.clip(0, 255).astype(np.uint8)


def by_pillow(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def jpeg():
    """jpeg(kind, height, width, seed, quality, **options of Pillow's writer, but for 4:4:0 and 4:1:1) -> bytes."""

    def make(kind, height, width, *, seed=0, quality=90, **options):
        pixels = picture(height, width, seed)
        if kind in ("4:4:0", "4:1:1"):  # only OpenCV writes them
            factor = {"4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440, "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411}[kind]
            flags = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor, cv2.IMWRITE_JPEG_QUALITY, quality]
            return cv2.imencode(".jpg", pixels[..., ::-1], flags)[1].tobytes()
        image = Image.fromarray(pixels)
        if kind == "grey":
            return by_pillow(image.convert("L"), quality=quality, **options)
        if kind in ("cmyk", "cmyk 4:2:0", "ycck"):
            data = by_pillow(image.convert("CMYK"), quality=quality, subsampling=2 if "4:2:0" in kind else 0, **options)
            # Pillow writes no YCCK; the same numbers under that name are a picture too, of other colours.
            return data.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2") if kind == "ycck" else data
        if kind == "rgb":
            return by_pillow(image, quality=quality, keep_rgb=True, **options)
        return by_pillow(image, quality=quality, subsampling=kind, **options)

    return make


@pytest.fixture(scope="session")
def photos(shared_data):
    """The 100 validation images of the sample, encoded."""
    with tarfile.open(shared_data / "ilsvrc_sample" / "ILSVRC2012_img_val.tar") as tar:
        return [tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()]
