import concurrent.futures
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest

from imagenet_jax.data.pixels import decode
from imagenet_jax.data.pixels.jpeg import crop
from imagenet_jax.data.pixels.jpeg import header as headers
from imagenet_jax.data.pixels.jpeg.restart import add_markers

SUPPORTED = ["4:4:4", "4:2:2", "4:4:0", "4:2:0", "grey"]
SIZES = [(1, 1), (7, 5), (8, 8), (17, 16), (16, 33), (61, 376), (97, 131), (200, 40)]
NUMBA, OPENCV, PILLOW = (decode.engine(name) for name in ("numba", "opencv", "pillow"))


def close(ours, theirs):
    """Whether two decodes of one image differ by no more than the rounding of IDCT and colours."""
    difference = np.abs(ours.astype(int) - theirs)
    return difference.max() <= 4 and difference.mean() < 0.3


@pytest.mark.parametrize("kind", SUPPORTED)
def test_whole_images_are_those_of_libjpeg(jpeg, kind):
    for height, width in SIZES:
        data = jpeg(kind, height, width)
        assert crop.supported(headers.read(data))
        ours = decode.whole(data, NUMBA)
        assert close(ours, decode.whole(data, OPENCV)), (height, width)
        assert close(ours, decode.whole(data, PILLOW)), (height, width)


@pytest.mark.parametrize("kind", SUPPORTED)
@pytest.mark.parametrize("optimize", [False, True])
def test_every_quality(jpeg, kind, optimize):
    for quality in [1, 2, 5, 10, 25, 50, 75, 90, 95, 98, 99, 100]:
        options = {} if kind == "4:4:0" else {"optimize": optimize}
        data = jpeg(kind, 61, 77, seed=quality, quality=quality, **options)
        assert close(decode.whole(data, NUMBA), decode.whole(data, OPENCV)), quality


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "grey"])
def test_long_codes_and_large_values(jpeg, kind):
    """Noise at quality 100: codes of up to 16 bits, and values of up to ten."""
    random = np.random.default_rng(0)
    extremes = random.choice(np.array([0, 255], np.uint8), (64, 80, 3))
    for optimize in (False, True):
        data = jpeg(kind, pixels=extremes, quality=100, optimize=optimize)
        assert len(data) > 64 * 80
        ours, theirs = decode.whole(data, NUMBA).astype(int), decode.whole(data, OPENCV)
        assert np.abs(ours - theirs).max() <= 4
        assert np.abs(ours - theirs).mean() < 0.6


@pytest.mark.parametrize("options", [{"restart_marker_blocks": n} for n in (1, 3, 5, 16)] + [{"restart_marker_rows": 2}])
@pytest.mark.parametrize("kind", ["4:2:0", "grey"])
def test_markers_at_any_distance(jpeg, kind, options):
    data = jpeg(kind, 97, 131, **options)
    np.testing.assert_array_equal(decode.whole(data, NUMBA), decode.whole(jpeg(kind, 97, 131), NUMBA))


@pytest.mark.parametrize("kind", SUPPORTED)
def test_a_crop_is_a_part_of_the_whole(jpeg, kind):
    random = np.random.default_rng(0)
    for height, width in SIZES:
        plain = jpeg(kind, height, width)
        whole = decode.whole(plain, NUMBA)
        foreign = jpeg(kind, height, width, restart_marker_blocks=3) if kind != "4:4:0" else plain
        images = [decode.read_header(data) for data in (plain, add_markers(plain), foreign)]
        for i in range(30):
            y, x = int(random.integers(height)), int(random.integers(width))
            if i % 2:
                y, x = y // 8 * 8, x // 8 * 8
            h, w = int(random.integers(1, height - y + 1)), int(random.integers(1, width - x + 1))
            if i % 3 == 0:
                h, w = min(8, height - y), min(8, width - x)
            for image in images:
                pixels = NUMBA.crop(image, y, x, h, w)
                np.testing.assert_array_equal(pixels, whole[y : y + h, x : x + w], err_msg=f"{height}x{width}: {(y, x, h, w)}")


def test_real_photos(photos):
    random = np.random.default_rng(0)
    means = []
    for data in photos[:40]:
        image = decode.read_header(data)
        whole = decode.whole(data, NUMBA)
        difference = np.abs(whole.astype(int) - decode.whole(data, OPENCV))
        assert difference.max() <= 4
        means.append(difference.mean())
        for _ in range(3):
            y, x = int(random.integers(image.height)), int(random.integers(image.width))
            h, w = int(random.integers(1, image.height - y + 1)), int(random.integers(1, image.width - x + 1))
            np.testing.assert_array_equal(NUMBA.crop(image, y, x, h, w), whole[y : y + h, x : x + w])
    assert max(means) < 0.3
    assert np.median(means) < 0.1


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4"])
def test_images_as_wide_as_jpeg_allows(jpeg, kind):
    data = jpeg(kind, 20, 65_500)
    assert close(decode.whole(data, NUMBA), decode.whole(data, OPENCV))
    whole, (y, x, h, w) = decode.whole(data, NUMBA), (3, 65_400, 9, 100)
    np.testing.assert_array_equal(NUMBA.crop(decode.read_header(data), y, x, h, w), whole[y : y + h, x : x + w])


def test_fill_bytes_and_trailing_bytes(jpeg):
    data = jpeg("4:2:0", 97, 131, restart_marker_blocks=3)
    expected = decode.whole(data, NUMBA)
    at = headers.read(data).data_at
    body = data[at:-2]
    for i in range(8):
        body = body.replace(bytes((0xFF, 0xD0 + i)), bytes((0xFF, 0xFF, 0xFF, 0xD0 + i)))
    filled = data[:2] + b"\xff\xff" + data[2:at] + body + b"\xff\xff\xff\xd9" + b"\xff\xd8 another image behind it \xff"
    np.testing.assert_array_equal(decode.whole(filled, NUMBA), expected)


@pytest.mark.parametrize("kind", ["cmyk", "cmyk 4:2:0", "ycck", "rgb", "4:1:1"])
def test_what_is_not_supported_goes_the_other_way(jpeg, kind):
    data = jpeg(kind, 97, 131)
    assert not crop.supported(headers.read(data))
    np.testing.assert_array_equal(decode.whole(data, NUMBA), decode.whole(data, OPENCV))


def test_progressive_goes_the_other_way(jpeg):
    data = jpeg("4:2:0", 97, 131, progressive=True)
    assert not crop.supported(headers.read(data))
    np.testing.assert_array_equal(decode.whole(data, NUMBA), decode.whole(data, OPENCV))
    # The same coefficients, so the same colours as the sequential file.
    np.testing.assert_array_equal(decode.whole(data, OPENCV), decode.whole(jpeg("4:2:0", 97, 131), OPENCV))


def test_red_green_and_blue_may_be_named_in_two_ways(jpeg):
    data = jpeg("rgb", 40, 50)  # Pillow: an Adobe marker with transform 0, or components R, G, B
    header = headers.read(data)
    assert header.adobe_transform == 0 or [c.id for c in header.components] == [*b"RGB"]
    named = data.replace(b"\xff\xee\0\x0eAdobe", b"\xff\xed\0\x0eOther")
    for i, (old, new) in enumerate(zip([c.id for c in header.components], b"RGB", strict=True)):
        frame = next(at for marker, at, _ in header.segments if marker in headers.FRAMES)
        scan = header.scan_at
        for at, step in ((frame + 10, 3), (scan + 5, 2)):
            assert named[at + step * i] == old
            named = named[: at + step * i] + bytes([new]) + named[at + step * i + 1 :]
    for engine in (NUMBA, OPENCV, PILLOW):
        np.testing.assert_array_equal(decode.whole(named, engine), decode.whole(data, OPENCV))


def test_a_table_may_hold_symbols_that_only_more_bits_need(jpeg):
    """libjpeg takes DC categories up to 15; one that no pixel uses does no harm."""
    data = jpeg("grey", 40, 50)
    header = headers.read(data)
    at = next(at for marker, at, _ in header.segments if marker == headers.DHT)
    assert data[at + 4] == 0  # the first table, for DC
    symbols = at + 5 + 16
    last = symbols + sum(data[at + 5 : symbols]) - 1
    assert data[last] == 11
    for symbol, accepted in ((15, True), (16, False)):
        other = data[:last] + bytes([symbol]) + data[last + 1 :]
        for engine in (NUMBA, OPENCV):
            if accepted:
                np.testing.assert_array_equal(decode.whole(other, engine), decode.whole(data, engine))
            else:
                with pytest.raises(ValueError, match=r"Huffman|OpenCV"):
                    decode.whole(other, engine)


@pytest.mark.parametrize("factor", [1, 255, 65535])
def test_any_quantization(jpeg, factor):
    data = jpeg("grey", 40, 50, quality=50)
    header = headers.read(data)
    at, end = next((at, end) for marker, at, end in header.segments if marker == headers.DQT)
    table = b"\xff\xdb" + struct.pack(">HB64H", 131, 0x10, *[factor] * 64)
    other = data[:at] + table + data[end:]
    ours, theirs = decode.whole(other, NUMBA), decode.whole(other, PILLOW)
    assert ours.shape == theirs.shape
    if factor < 65535:  # there libjpeg's integers overflow
        assert np.abs(ours.astype(int) - theirs).mean() < 1


def test_memory_of_a_huge_image_is_not_kept(jpeg, monkeypatch):
    monkeypatch.setattr(crop, "KEPT", 1 << 15)
    monkeypatch.setattr(crop, "_scratch", crop._Scratch())
    expected = decode.whole(jpeg("4:2:0", 20, 30), NUMBA)
    decode.whole(jpeg("4:2:0", 400, 400), NUMBA)
    assert set(crop._scratch.bytes) == {"stream", "planes", "rgb"}
    assert max(kept.size for kept in crop._scratch.bytes.values()) == 1 << 15
    np.testing.assert_array_equal(decode.whole(jpeg("4:2:0", 20, 30), NUMBA), expected)


@pytest.mark.parametrize("count", [1200, pytest.param(40_000, marks=pytest.mark.slow)])
@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory and reads /proc")
def test_damaged_bytes_neither_end_the_process_nor_take_memory(jpeg, tmp_path, count):
    """Bits, sizes, tables and markers wrong: an error, or an image of the header's size (damage.py)."""
    images = [
        jpeg("4:2:0", 48, 64),
        jpeg("4:4:4", 40, 70, optimize=True),
        jpeg("grey", 33, 47),
        jpeg("4:2:2", 48, 64, restart_marker_blocks=3),
        add_markers(jpeg("4:2:0", 64, 130)),
        add_markers(jpeg("grey", 64, 130, quality=98)),
        add_markers(jpeg("cmyk 4:2:0", 40, 40)),
    ]
    for i, data in enumerate(images):
        (tmp_path / f"{i}.jpg").write_bytes(data)
    command = [sys.executable, pathlib.Path(__file__).with_name("damage.py"), str(count), str(count), *sorted(tmp_path.iterdir())]
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30 + count / 40)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    ends = json.loads(done.stdout)
    assert sum(ends.values()) == 4 * count
    assert min(ends.values()) > count / 20  # of every way, images and errors


def test_a_size_that_the_bytes_cannot_have_is_an_error_before_anything_is_allocated(jpeg, monkeypatch):
    data = bytearray(jpeg("4:2:0", 40, 50))
    at = next(at for marker, at, _ in headers.segments(bytes(data)) if marker in headers.FRAMES)
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    header = headers.read(bytes(data))
    monkeypatch.setattr(crop, "_bytes", None)
    monkeypatch.setattr(np, "empty", None)
    with pytest.raises(ValueError, match="fewer bytes than its size asks for"):
        crop.decode_crop(bytes(data), header, 0, 0, header.height, header.width)


def test_threads_do_not_share_memory(jpeg):
    images = [jpeg(kind, 97, 131, seed=i) for i, kind in enumerate(SUPPORTED * 4)]
    alone = [decode.whole(data, NUMBA) for data in images]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for ours, theirs in zip(pool.map(lambda data: decode.whole(data, NUMBA), images), alone, strict=True):
                np.testing.assert_array_equal(ours, theirs)
