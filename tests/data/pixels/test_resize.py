import numpy as np
import pytest

from imagenet_jax.data.pixels import decode, resize


def psnr(a, b):
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


@pytest.mark.parametrize(("side", "least"), [(128, 46), (64, 44), (32, 41)])  # medians measured on crops: 49, 46 and 43
def test_shrinking_photos_is_near_to_pillow(photos, side, least):
    images = [decode.whole(data, decode.engine("opencv")) for data in photos[:20]]
    found = [psnr(resize.by_opencv(image, side, True), resize.by_pillow(image, side, True)) for image in images]
    assert np.median(found) > least
    assert min(found) > least - 9  # 35.7 dB for one photo at 64


@pytest.mark.parametrize("shrink", [1.5, 2.3, 2.9, 3.1, 5.7, 12.5])  # 3: where averaging whole pixels begins
@pytest.mark.parametrize("across", [True, False])
def test_what_the_new_pixels_cannot_show_does_not_come_back_as_another_pattern(shrink, across):
    side, length = 64, round(64 * shrink)
    for period in (2.1, 1.25 * shrink):  # pixels; the new ones show nothing below 2 x shrink
        if period >= 2:
            wave = 127.5 + 120 * np.sin(2 * np.pi * np.arange(length) / period)
            grating = np.broadcast_to(wave if across else wave[:, None], (length, length)).astype(np.uint8)
            ours, pillow, aliased = (
                f(grating, side, a)[4:-4, 4:-4].std()
                for f, a in ((resize.by_opencv, True), (resize.by_pillow, True), (resize.by_opencv, False))
            )
            # Worst near the finest stripes where little shrinks (1.5 times): 23 levels, Pillow's 10, without antialiasing 43.
            assert ours < max(pillow + 4, 0.6 * aliased), period


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(3000, 4000, 224), (5000, 2, 16), (2, 5000, 16), (1, 1, 16), (1, 900, 32), (900, 1, 32), (3, 3, 1)],
)
@pytest.mark.parametrize("antialias", [True, False])
def test_extreme_shapes(height, width, side, antialias):
    y, x = np.mgrid[:height, :width]
    ramp = (255 * (y + 0.5) / height * 0.5 + 255 * (x + 0.5) / width * 0.5).astype(np.uint8)
    ours = resize.by_opencv(ramp, side, antialias)
    assert (ours.shape, ours.dtype) == ((side, side), np.uint8)
    assert np.abs(ours.astype(int) - resize.by_pillow(ramp, side, antialias)).max() <= 6


def test_an_even_image_stays_even():
    for height, width in ((500, 375), (97, 1000), (10, 10)):
        for antialias in (True, False):
            assert (resize.by_opencv(np.full((height, width, 3), 201, np.uint8), 64, antialias) == 201).all()
