"""The kernel that resizes, against OpenCV's and by its definition."""

import cv2
import numpy as np
import pytest

from imagenet_jax.data.pixels import linear

SHAPES = [(190, 190), (120, 150), (330, 270), (224, 224), (500, 375), (2, 2), (1, 5), (97, 31), (9, 3000)]


def made(image, shape, mirrored=False):
    """Resized into the middle of a larger array, the rest of which must stay as it is."""
    room = np.full((shape[0] + 2, shape[1] + 6, 3), 7, np.uint8)
    out = room[1:-1, 3:-3]
    assert linear.possible(image, out)
    linear.resize(image, out, mirrored)
    result = out.copy()
    out[:] = 7
    assert (room == 7).all()
    return result


@pytest.mark.parametrize("shape", [(224, 224), (33, 33), (8, 8), (20, 13)])
def test_within_a_level_of_opencv(shape):
    random = np.random.default_rng(0)
    for height, width in SHAPES:
        image = random.integers(0, 256, (height + 3, width + 5, 3), np.uint8)[1:-2, 2:-3]
        wanted = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR)
        difference = np.abs(made(image, shape).astype(int) - wanted)
        assert difference.max() <= 1
        assert difference.mean() < 0.25
        np.testing.assert_array_equal(made(image, shape, True)[:, ::-1], made(image, shape))


def test_the_same_size_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    np.testing.assert_array_equal(made(image, (24, 40)), image)


@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
def test_an_even_image_stays_even(level):
    assert (made(np.full((37, 50, 3), level, np.uint8), (31, 64)) == level).all()


def test_what_it_cannot_do():
    image = np.zeros((20, 20, 3), np.uint8)
    assert not linear.possible(image[:, :1], image)
    assert not linear.possible(image, image[:, :7])
    assert not linear.possible(image[..., ::-1], image)
    assert not linear.possible(image[:, ::2], image)
