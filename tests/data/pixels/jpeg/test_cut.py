import itertools
import struct

import numpy as np
import pytest

from imagenet_jax.data.pixels import decode
from imagenet_jax.data.pixels.jpeg import cut
from imagenet_jax.data.pixels.jpeg import header as headers
from imagenet_jax.data.pixels.jpeg.restart import add_markers

KINDS = ["4:4:4", "4:2:2", "4:4:0", "4:2:0", "4:1:1", "grey", "cmyk", "cmyk 4:2:0", "ycck", "rgb"]
# One pixel, less than an MCU, exactly one, a pixel more; a prime number of MCUs in a row (376: 47); tall, wide.
SIZES = [(1, 1), (7, 5), (8, 8), (17, 16), (16, 33), (61, 376), (97, 131), (200, 40)]


def boxes(height, width, count, seed=0):
    """(y, x, height, width) inside the image: the whole, its corner pixels, around every edge of an MCU, and random ones."""
    random = np.random.default_rng(seed)
    edges = {0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33}
    down, across = (
        [e for e in sorted(edges | {n - 1, n - 2, n // 8 * 8, n // 16 * 16 - 1}) if 0 <= e < n] for n in (height, width)
    )
    yield 0, 0, height, width
    yield from ((y, x, 1, 1) for y in (0, height - 1) for x in (0, width - 1))
    for i in range(count):
        y, x = (int(random.choice(e) if i % 2 else random.integers(n)) for e, n in ((down, height), (across, width)))
        bottom, right = (int(random.integers(a, n) + 1) for a, n in ((y, height), (x, width)))
        yield y, x, bottom - y, right - x


@pytest.fixture(scope="module", params=["opencv", "pillow"])
def engine(request):
    return decode.engine(request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_out_decodes_to_the_pixels_of_the_whole(jpeg, engine, kind):
    for height, width in SIZES:
        data = jpeg(kind, height, width)
        whole = decode.whole(data, engine)  # of the file without markers
        marked = decode.read_header(add_markers(data))
        assert cut.possible(marked.header)
        for y, x, h, w in boxes(height, width, 24):
            pixels = engine.crop(marked, y, x, h, w)
            np.testing.assert_array_equal(pixels, whole[y : y + h, x : x + w], err_msg=f"{height}x{width}: {(y, x, h, w)}")


def test_crops_of_real_photos_are_exact(engine, photos):
    for data in photos[:30]:
        whole = decode.whole(data, engine)
        marked = decode.read_header(add_markers(data))
        for y, x, h, w in boxes(marked.height, marked.width, 4):
            pixels = engine.crop(marked, y, x, h, w)
            np.testing.assert_array_equal(pixels, whole[y : y + h, x : x + w])


def test_a_cut_is_much_smaller_and_needs_nothing_of_the_rest(jpeg):
    data = add_markers(jpeg("4:2:0", 512, 512, quality=95))
    header = headers.read(data)
    small, y, x, height, width = cut.cut(data, header, 200, 200, 30, 30)
    assert (y, x, height, width) == (8, 8, 48, 64)  # rows 192 .. 239 and one segment of 64 pixels
    assert headers.read(small)[3:5] == (height, width)
    assert len(small) < len(data) / 20
    bounds = cut.segment_bounds(data, header)
    kept = set(range(12 * 8 + 3, 15 * 8 + 3, 8))
    others = bytearray(data)
    for i in set(range(len(bounds) - 1)) - kept:
        others[bounds[i] : bounds[i + 1] - 2] = bytes(int(bounds[i + 1] - 2 - bounds[i]))
    assert cut.cut(bytes(others), header, 200, 200, 30, 30)[0] == small


def lengths_segment(data):
    """(where the lengths begin, where they end) in a marked file."""
    (found,) = [(at, end) for marker, at, end in headers.segments(data) if marker == cut.LENGTHS_MARKER]
    return found[0] + 4 + len(cut.LENGTHS_NAME), found[1]


def without_lengths(data):
    begin, end = lengths_segment(data)
    return data[: begin - 4 - len(cut.LENGTHS_NAME)] + data[end:]


def test_without_lengths_the_markers_are_searched_for(jpeg):
    data = add_markers(jpeg("4:2:0", 97, 256))
    bare = without_lengths(data)
    assert cut.LENGTHS_NAME not in bare
    shift = len(data) - len(bare)
    np.testing.assert_array_equal(
        cut.segment_bounds(data, headers.read(data)), cut.segment_bounds(bare, headers.read(bare)) + shift
    )
    # One length too few or too many, or half a one: not believed.
    begin, end = lengths_segment(data)
    for wrong in (data[begin : end - 2], data[begin:end] + b"\0\x09", data[begin:end] + b"\0"):
        name = b"\xff\xeb" + struct.pack(">H", 2 + len(cut.LENGTHS_NAME) + len(wrong)) + cut.LENGTHS_NAME
        other = bare[:2] + name + wrong + bare[2:]
        bounds = cut.segment_bounds(other, headers.read(other))
        np.testing.assert_array_equal(bounds - bounds[0], cut.segment_bounds(data, headers.read(data)) - headers.read(data).data_at)


def test_lengths_are_believed_only_where_they_hit_the_markers(jpeg):
    data = add_markers(jpeg("4:2:0", 97, 256))
    begin, end = lengths_segment(data)
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for at in random.integers(begin, end, random.integers(1, 4)):
            damaged[at] ^= random.integers(1, 256)
        if damaged != data:
            with pytest.raises(ValueError, match=r"JPEG: .*restart"):
                cut.cut(bytes(damaged), headers.read(data), 10, 10, 20, 20)


@pytest.mark.parametrize("damage", ["lost", "twice", "swapped", "renumbered", "no end"])
def test_markers_that_are_not_as_promised_are_an_error(jpeg, damage):
    data = without_lengths(add_markers(jpeg("4:2:0", 97, 256)))
    header = headers.read(data)
    bounds = cut.segment_bounds(data, header).tolist()
    parts = [data[a:b] for a, b in zip([0, *bounds], bounds, strict=False)]
    if damage == "lost":
        parts[3] = parts[3][:-2]
    elif damage == "twice":
        parts.insert(3, parts[3])
    elif damage == "swapped":
        parts[3], parts[4] = parts[4], parts[3]
    elif damage == "renumbered":
        parts[3] = parts[3][:-1] + b"\xd7"
    else:
        parts[-1] = parts[-1][:-2]
    with pytest.raises(ValueError, match=r"JPEG: .*restart"):
        cut.cut(b"".join(parts), header, 0, 0, 8, 8)


def test_fill_bytes_before_markers_do_no_harm(jpeg, engine):
    data = without_lengths(add_markers(jpeg("4:2:0", 97, 256)))
    header = headers.read(data)
    bounds = cut.segment_bounds(data, header).tolist()
    filled = data[: bounds[0]] + b"".join(data[a : b - 2] + b"\xff\xff" + data[b - 2 : b] for a, b in itertools.pairwise(bounds))
    whole = decode.whole(data, engine)
    for y, x, h, w in boxes(97, 256, 10):
        pixels = engine.crop(decode.read_header(filled + b"\xff\xd3 behind the end"), y, x, h, w)
        np.testing.assert_array_equal(pixels, whole[y : y + h, x : x + w])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"restart_marker_rows": 1}, True),
        ({"restart_marker_blocks": 4}, True),
        ({"restart_marker_blocks": 3}, False),
        ({"restart_marker_rows": 2}, False),
        ({}, False),
        ({"progressive": True, "restart_marker_rows": 1}, False),
    ],
)
def test_markers_of_others_serve_where_they_divide_the_rows(jpeg, engine, options, expected):
    data = jpeg("4:2:0", 97, 256, **options)
    image = decode.read_header(data)
    assert cut.possible(image.header) == expected
    whole = decode.whole(jpeg("4:2:0", 97, 256, **{k: v for k, v in options.items() if k == "progressive"}), engine)
    for y, x, h, w in boxes(97, 256, 10):
        pixels = engine.crop(image, y, x, h, w)
        np.testing.assert_array_equal(pixels, whole[y : y + h, x : x + w])
