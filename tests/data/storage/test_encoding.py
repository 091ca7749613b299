import io
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

import imagenet_jax.data.pixels.jpeg
from imagenet_jax.data.preparing.judge import check_markers, judge
from imagenet_jax.data.storage.encoding import PLAIN, Encoding, choose, shrunk
from imagenet_jax.errors import UserError


@pytest.mark.parametrize(
    ("flags", "config"),
    [
        ((None, None, None, False), None),
        ((None, None, None, True), "rst"),
        ((256, None, None, False), "short256_q90"),
        ((None, 500, 75, True), "max500_q75_rst"),
    ],
)
def test_flags_make_the_name(flags, config):
    assert choose(*flags).config == config
    assert config is None or re.fullmatch(r"[\w.-]+", config)  # what sources.find takes for a config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((256, 500, None, False), "exclude each other"),
        ((None, None, 80, False), "goes with --short_side"),
        ((8, None, None, False), "8 pixels is out of range"),
        ((256, None, 101, False), "--quality=101"),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    with pytest.raises(UserError, match=message):
        choose(*flags)


@pytest.mark.parametrize(
    ("encoding", "size", "expected"),
    [
        (choose(256, None, None, False), (500, 375), (341, 256)),
        (choose(256, None, None, False), (375, 500), (256, 341)),
        (choose(256, None, None, False), (255, 4000), (255, 4000)),  # never larger
        (choose(None, 500, None, False), (1000, 3), (500, 2)),
        (choose(None, 500, None, False), (1, 20000), (1, 500)),
        (choose(None, 500, None, False), (500, 375), (500, 375)),
        (PLAIN, (9000, 9000), (9000, 9000)),
    ],
)
def test_sizes(encoding, size, expected):
    assert shrunk(Image.new("L", size), encoding).size == expected


def test_shrinking_does_not_alias():
    """Stripes of one pixel become even grey; without antialiasing they would turn into wide stripes."""
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(shrunk(Image.fromarray(stripes), Encoding(short_side=200, quality=90)), int)
    assert np.abs(small[8:-8, 8:-8] - 127).max() < 12


@pytest.mark.parametrize(("mode", "format"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "GIF")])
def test_every_image_becomes_a_jpeg_of_that_size_and_quality(make_image, mode, format):
    data = make_image(format, mode, size=(90, 60))
    verdict = judge(data, only_jpeg=False, encoding=Encoding(short_side=32, quality=80))
    with Image.open(io.BytesIO(verdict.data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L" if mode == "L" else "RGB", (48, 32))
        tables = image.quantization
        if mode != "L":
            assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]  # chroma 4:2:0
    with Image.open(io.BytesIO(make_image(quality=80, mode="L" if mode == "L" else "RGB"))) as image:
        assert image.quantization == tables
    assert verdict.rewritten == (None if mode in ("RGB", "L") else f"{mode} {format}")


def test_a_small_image_keeps_its_size_and_the_metadata_of_cameras_go():
    exif = Image.Exif()
    exif[274] = 6  # rotated: no reference pipeline applies it, and what nobody applies must not be left to chance
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG", exif=exif)
    verdict = judge(buffer.getvalue(), only_jpeg=True, encoding=Encoding(max_side=64, quality=90))
    with Image.open(io.BytesIO(verdict.data)) as image:
        assert image.size == (40, 30)
        assert not image.getexif()


def test_the_colour_beneath_alpha_is_kept():
    buffer = io.BytesIO()
    Image.new("RGBA", (32, 32), (200, 40, 90, 0)).save(buffer, "PNG")
    verdict = judge(buffer.getvalue(), only_jpeg=False, encoding=Encoding(short_side=16, quality=95))
    with Image.open(io.BytesIO(verdict.data)) as image:
        assert np.abs(np.asarray(image, int) - (200, 40, 90)).max() <= 2


def test_what_cannot_be_decoded_is_left_out_all_the_same(make_image):
    encoding = Encoding(short_side=32, quality=90)
    assert "truncated" in judge(make_image(size=(200, 150))[:-300], only_jpeg=True, encoding=encoding).left_out
    assert "no image" in judge(b"<html>", only_jpeg=True, encoding=encoding).left_out


@pytest.fixture
def markers(monkeypatch):
    """Stands in for restart.py: puts a comment into a JPEG, and refuses progressive ones."""

    def add_markers(data):
        if b"\xff\xc2" in data:
            raise ValueError("progressive")
        return data[:2] + b"\xff\xfe\x00\x06mark" + data[2:]

    stub = types.SimpleNamespace(add_markers=add_markers)
    monkeypatch.setitem(sys.modules, "imagenet_jax.data.pixels.jpeg.restart", stub)
    monkeypatch.setattr(imagenet_jax.data.pixels.jpeg, "restart", stub, raising=False)


def test_markers_go_into_what_is_stored_and_what_cannot_have_them_is_kept_and_counted(make_image, markers):
    marked = Encoding(restart_markers=True)
    plain, progressive, png = make_image(), make_image(progressive=True), make_image("PNG")
    verdict = judge(plain, only_jpeg=False, encoding=marked)
    assert (verdict.data[:2] + verdict.data[10:], verdict.unmarked, verdict.rewritten) == (plain, None, None)
    assert judge(progressive, only_jpeg=False, encoding=marked) == (progressive, None, None, "progressive")
    assert judge(png, only_jpeg=False, encoding=marked) == (png, None, None, "no JPEG")
    assert b"mark" in judge(png, only_jpeg=True, encoding=marked).data
    small = judge(progressive, only_jpeg=False, encoding=Encoding(short_side=16, quality=90, restart_markers=True))
    assert b"mark" in small.data
    assert judge(b"", only_jpeg=False, encoding=marked).left_out


def test_markers_without_numba_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagenet_jax.data.pixels.jpeg.restart", None)
    monkeypatch.delattr(imagenet_jax.data.pixels.jpeg, "restart", raising=False)
    with pytest.raises(UserError, match=r"pip install 'imagenet_jax\[prepare\]'"):
        check_markers()
