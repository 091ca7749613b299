"""Every operation against Pillow, which torchvision and timm call for it."""

import colorsys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from imagenet_jax.data.augmentation import operations as ops
from imagenet_jax.errors import UserError


@pytest.fixture(scope="module")
def image():
    """Smooth colours with some noise, 96 x 96, all values 6 .. 249 in use: as far as an operation cares, a photograph."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 7, 3), np.uint8)
    smooth = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC).astype(float)
    return (smooth + rng.normal(0, 4, smooth.shape)).clip(6, 249).astype(np.uint8)


def pillow(image, change):
    return np.asarray(change(Image.fromarray(image))).astype(int)


def apart(ours, theirs):
    """Largest difference, and peak signal-to-noise ratio in dB."""
    assert ours.dtype == np.uint8
    difference = ours.astype(int) - theirs
    return np.abs(difference).max(), 10 * np.log10(255**2 / max(1e-9, np.mean(difference**2.0)))


ENHANCERS = [
    (ops.brightness, ImageEnhance.Brightness),
    (ops.contrast, ImageEnhance.Contrast),
    (ops.saturation, ImageEnhance.Color),
    (ops.sharpness, ImageEnhance.Sharpness),
]


@pytest.mark.parametrize(("operation", "enhancer"), ENHANCERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("factor", [0.0, 0.1, 0.5, 0.73, 1.0, 1.3, 1.9])
def test_enhancements_are_pillows_to_within_a_level(image, operation, enhancer, factor):
    ours, theirs = operation(image.copy(), factor), pillow(image, lambda i: enhancer(i).enhance(factor))
    largest, db = apart(ours, theirs)
    assert largest <= 1
    assert db > 51
    if factor == 1:
        np.testing.assert_array_equal(ours, image)
    # Pillow cuts off fractions; rounding would be brighter by half a level. At 0 it has none, at 0.5 half of the time.
    assert abs((ours - theirs).mean()) < {0.0: 0.6, 0.5: 0.3}.get(factor, 0.15)


EXACT = {
    "solarize 0": (lambda x: ops.solarize(x, 0), lambda i: ImageOps.solarize(i, 0)),
    "solarize 128": (lambda x: ops.solarize(x, 128), lambda i: ImageOps.solarize(i, 128)),
    "solarize 76.5": (lambda x: ops.solarize(x, 76.5), lambda i: ImageOps.solarize(i, 76.5)),
    "solarize 255": (lambda x: ops.solarize(x, 255), lambda i: ImageOps.solarize(i, 255)),
    "solarize 256": (lambda x: ops.solarize(x, 256), lambda i: i),
    "solarize_add": (
        lambda x: ops.solarize_add(x, 77),
        lambda i: i.point([min(255, v + 77) if v < 128 else v for v in range(256)] * 3),
    ),
    "posterize 1": (lambda x: ops.posterize(x, 1), lambda i: ImageOps.posterize(i, 1)),
    "posterize 5": (lambda x: ops.posterize(x, 5), lambda i: ImageOps.posterize(i, 5)),
    "posterize 8": (lambda x: ops.posterize(x, 8), lambda i: i),
    "posterize 0": (lambda x: ops.posterize(x, 0), lambda i: Image.new("RGB", i.size)),
    "invert": (ops.invert, ImageOps.invert),
    "autocontrast": (ops.autocontrast, ImageOps.autocontrast),
    "equalize": (ops.equalize, ImageOps.equalize),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("kind", ["photograph", "one colour", "two values", "narrow"])
def test_tables_are_pillows_exactly(image, name, kind):
    if kind == "one colour":
        image = np.full_like(image, 130)
    elif kind == "two values":
        image = np.where(image > 100, 90, 140).astype(np.uint8)
    elif kind == "narrow":
        image = image // 16 + np.array([3, 100, 239], np.uint8)
    ours, theirs = EXACT[name]
    np.testing.assert_array_equal(ours(image.copy()), pillow(image, theirs))


def test_greyscale_is_the_luma_to_within_a_level(image):
    ours = ops.greyscale(image.copy())
    assert apart(ours, pillow(image, lambda i: i.convert("L").convert("RGB")))[0] <= 1
    assert (np.ptp(ours, axis=-1) == 0).all()


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.05, 0.3])
def test_hue_is_nearer_to_the_exact_turn_than_torchvisions(image, shift):
    exact = np.empty(image.shape)
    for place in np.ndindex(*image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255))
        exact[place] = 255 * np.array(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value))

    def turn(picture):
        hue, saturation, value = picture.convert("HSV").split()
        hue = Image.fromarray(np.asarray(hue) + np.uint8(int(shift * 255) % 256))
        return Image.merge("HSV", (hue, saturation, value)).convert("RGB")

    largest, db = apart(ops.hue(image.copy(), shift), exact)
    assert largest < 9  # hue has 8 bits, of which Pillow loses half a one more
    assert db > 45
    assert db > 10 * np.log10(255**2 / np.mean((pillow(image, turn) - exact) ** 2))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_gaussian_blur_is_the_convolution_by_definition(image, sigma):
    reach = np.arange(-12, 13)
    kernel = np.exp(-(reach**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.pad(image.astype(float), ((12, 12), (12, 12), (0, 0)), mode="edge")
    for axis in (0, 1):
        padded = np.apply_along_axis(np.convolve, axis, padded, kernel, mode="same")
    ours = ops.gaussian_blur(image.copy(), sigma)
    assert apart(ours, padded[12:-12, 12:-12])[0] <= 1.5
    assert apart(ours, pillow(image, lambda i: i.filter(ImageFilter.GaussianBlur(sigma))))[1] > 45  # Pillow's is an approximation


MAPS = [(1, 0.2, 0, 0, 1, 0), (1, 0, 0, -0.31, 1, 0), (1, 0, -17, 0, 1, 0), (1, 0, 0, 0, 1, 4.3), (0.9, 0.1, 2, -0.2, 1.1, 3)]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def inside(image, warp):
    """Where neither library needs a pixel from outside."""
    full = warp(np.full_like(image, 255)) == 255
    return cv2.erode(full.astype(np.uint8), np.ones((5, 5)), borderValue=0).astype(bool)


def check_warp(image, name, ours, theirs):
    expected, got = pillow(image, theirs).copy(), ours(image)
    where = inside(image, ours)
    assert where.mean() > 0.4
    off = np.abs(got.astype(int) - expected)[where]
    if name == "nearest":
        assert np.mean(off > 0) < 0.1  # where a point lies on a border between pixels, either will do
    else:
        assert off.max() <= {"bilinear": 4, "bicubic": 12}[name]  # their cubics differ: a = -0.75 and -0.5
        assert np.sqrt(np.mean(off**2.0)) < {"bilinear": 1, "bicubic": 1.6}[name]
    outside = pillow(np.full_like(image, 255), theirs)[..., 0] == 1
    outside = cv2.erode(outside.astype(np.uint8), np.ones((5, 5)), borderValue=1).astype(bool)
    assert (got[outside] == (1, 2, 3)).all()


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("numbers", MAPS)
def test_warps_are_pillows_affine_transform(image, name, numbers):
    warp = ops.Warp(name, (1, 2, 3))
    method = Image.Transform.AFFINE
    check_warp(
        image,
        name,
        lambda x: warp(x, *numbers),
        lambda i: i.transform(i.size, method, numbers, FILTERS[name], fillcolor=(1, 2, 3)),
    )


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("degrees", [-30, 13, 90])
def test_rotation_is_pillows(image, name, degrees):
    warp = ops.Warp(name, (1, 2, 3))
    check_warp(image, name, lambda x: warp.rotate(x, degrees), lambda i: i.rotate(degrees, FILTERS[name], fillcolor=(1, 2, 3)))


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(UserError, match=r"No interpolation 'bilinaer'. Did you mean 'bilinear'"):
        ops.Warp("bilinaer", (0, 0, 0))
