"""PSNR to Pillow's pixels."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from imagenet_jax.bench import quality
from imagenet_jax.bench.peers import opencv, pillow_processes
from imagenet_jax.bench.task import Task, draw_view
from imagenet_jax.data.reading.records import Record, Source


def encoded(size, seed=0, scale=4):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // scale, size[0] // scale, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def task(images, size=32):
    source = Source("noise", "1.0.0", "train", ("a",), "", {}, 0, [Record(image, 0, str(i)) for i, image in enumerate(images)])
    return Task(source, source, 1, size, 4, "opencv", True)


def test_psnr_of_a_known_difference():
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert quality.psnr(grey, grey) == quality.IDENTICAL
    assert quality.psnr(grey + np.uint8(1), grey) == pytest.approx(48.13, abs=0.01)  # 10 log10(255^2)
    assert quality.psnr(grey, grey + np.uint8(20)) == pytest.approx(22.11, abs=0.01)  # no wrapping below zero, nor of the square


def test_pillows_own_way_is_identical():
    images = [encoded((96, 80), seed) for seed in range(3)]
    found = quality.measure(pillow_processes.square(task(images)), images, 32, 12)
    assert found["median"] == found["p5"] == found["shrinking_p5"] == quality.IDENTICAL
    assert (found["n"], found["shrinking_n"]) == (12, 8)


def test_aliasing_shows_on_crops_that_shrink():
    images = [encoded((200, 200), seed) for seed in range(3)]
    linear = quality.measure(opencv.square(task(images)), images, 32, 12)
    square = pillow_processes.square(task(images))
    near = quality.measure(lambda d, v: cv2.GaussianBlur(square(d, v), (3, 3), 0.3), images, 32, 12)
    assert linear["shrinking_median"] < 30 < near["shrinking_median"] < quality.IDENTICAL


def test_without_crops_that_shrink_there_is_no_number_for_them():
    images = [encoded((32, 32))]
    found = quality.measure(pillow_processes.square(task(images)), images, 32, 3)
    assert found["shrinking_median"] is found["shrinking_p5"] is None


def test_views_are_the_same_for_the_same_key_and_are_not_all_alike():
    views = [draw_view(32, number)(60, 80) for number in range(50)]
    assert views == [draw_view(32, number)(60, 80) for number in range(50)]
    assert len(set(views)) > 45
    assert 10 < sum(view.flip for view in views) < 40
