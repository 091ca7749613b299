import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from imagenet_jax.data.preparing import judge as judge_module
from imagenet_jax.data.preparing.judge import judge


@pytest.mark.parametrize("only_jpeg", [True, False])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [True, False])
def test_grey_and_rgb_jpeg_stay_byte_for_byte(make_image, mode, only_jpeg, progressive):
    data = make_image("JPEG", mode, progressive=progressive)
    assert judge(data, only_jpeg=only_jpeg) == (data, None, None, None)


@pytest.mark.parametrize("only_jpeg", [True, False])
def test_cmyk_becomes_rgb_jpeg_with_the_same_colours(make_image, only_jpeg):
    data = make_image("JPEG", "CMYK", quality=100, subsampling=0)
    verdict = judge(data, only_jpeg=only_jpeg)
    assert verdict.rewritten == "CMYK JPEG"
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(verdict.data)) as after:
        assert (after.format, after.mode) == ("JPEG", "RGB")
        # chroma at full resolution: all three components are sampled alike
        assert len({tuple(layer[1:3]) for layer in after.layer}) == 1
        difference = np.abs(np.asarray(before.convert("RGB"), int) - np.asarray(after, int))
    assert difference.mean() < 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_stays_byte_for_byte_where_it_may(make_image, mode):
    data = make_image("PNG", mode)
    assert judge(data, only_jpeg=False) == (data, None, None, None)
    verdict = judge(data, only_jpeg=True)
    assert verdict.rewritten == f"{mode} PNG"
    with Image.open(io.BytesIO(verdict.data)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_other_formats_become_png_without_loss(make_image, format, options):
    data = make_image(format, **options)
    verdict = judge(data, only_jpeg=False)
    assert verdict.rewritten.endswith(format)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(verdict.data)) as after:
        assert after.format == "PNG"
        np.testing.assert_array_equal(np.asarray(after.convert("RGB")), np.asarray(before.convert("RGB")))


def test_sixteen_bits_of_grey_become_the_upper_eight():
    wide = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, "PNG")
    with Image.open(io.BytesIO(judge(buffer.getvalue(), only_jpeg=False).data)) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("L")), np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_cut_anywhere_is_left_out(make_image, progressive):
    data = make_image("JPEG", size=(200, 150), progressive=progressive)
    for cut in range(1, len(data), 97):
        verdict = judge(data[:-cut], only_jpeg=True)
        assert verdict.data is None, cut
        assert verdict.left_out, cut


@pytest.mark.parametrize("data", [b"", b"no image at all", b"\xff\xd8\xff", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_what_is_no_image_is_left_out_with_a_reason(data):
    verdict = judge(data, only_jpeg=False)
    assert verdict.data is None
    assert "no image" in verdict.left_out or "unreadable" in verdict.left_out


def png_bomb(width, height):
    """A PNG of a few dozen bytes whose header promises width x height pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8001, 9999, 65535])  # over our limit; over Pillow's warning; over Pillow's error
def test_a_bomb_is_turned_away_by_its_header(side):
    assert "too large" in judge(png_bomb(side, side), only_jpeg=False).left_out


def test_the_pixel_limit_itself_is_allowed(make_image, monkeypatch):
    monkeypatch.setattr(judge_module, "MAX_PIXELS", 24 * 16)
    assert judge(make_image(size=(24, 16)), only_jpeg=True).data
    assert "too large: 25 x 16" in judge(make_image(size=(25, 16)), only_jpeg=True).left_out
