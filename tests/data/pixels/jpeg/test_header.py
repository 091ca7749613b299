import struct

import pytest

from imagenet_jax.data.pixels import decode
from imagenet_jax.data.pixels.jpeg import header as headers


def frame_at(data):
    return next(at for marker, at, _ in headers.segments(data) if marker in headers.FRAMES)


def inserted(data, segment):
    return data[:2] + segment + data[2:]


@pytest.mark.parametrize(
    ("kind", "mcu", "count"),
    [
        ("4:4:4", (8, 8), 3),
        ("4:2:2", (8, 16), 3),
        ("4:4:0", (16, 8), 3),
        ("4:2:0", (16, 16), 3),
        ("4:1:1", (8, 32), 3),
        ("grey", (8, 8), 1),
        ("cmyk", (8, 8), 4),
    ],
)
def test_what_a_header_says(jpeg, kind, mcu, count):
    data = jpeg(kind, 97, 131)
    header = headers.read(data)
    assert (header.height, header.width, header.precision, header.frame) == (97, 131, 8, 0xC0)
    assert (header.mcu, len(header.components)) == (mcu, count)
    assert header.mcus == (-(-97 // mcu[0]), -(-131 // mcu[1]))
    assert header.sequential
    assert header.restart_interval == 0
    assert data[header.scan_at : header.scan_at + 2] == b"\xff\xda"


def test_progressive_and_restart_intervals(jpeg):
    assert not headers.read(jpeg("4:2:0", 97, 131, progressive=True)).sequential
    assert headers.read(jpeg("4:2:0", 97, 131, restart_marker_blocks=7)).restart_interval == 7


def test_every_header_that_is_cut_off_is_an_error(jpeg):
    data = jpeg("4:2:0", 40, 50, comment=b"a comment")
    for length in range(headers.read(data).data_at):
        with pytest.raises(ValueError, match="JPEG"):
            headers.read(data[:length])


@pytest.mark.parametrize(
    "size", [(0, 50), (40, 0), (0, 0)]
)  # height 0: it follows behind the scan (DNL), which libjpeg refuses too
def test_an_image_without_pixels_is_an_error(jpeg, size):
    data = jpeg("4:2:0", 40, 50)
    at = frame_at(data) + 5
    other = data[:at] + struct.pack(">HH", *size) + data[at + 4 :]
    with pytest.raises(ValueError, match="without pixels"):
        headers.read(other)
    with pytest.raises(ValueError, match=r"Pillow|OpenCV|JPEG"):
        decode.whole(other, decode.engine("numba"))


def test_headers_that_contradict_themselves_are_errors(jpeg):
    data = jpeg("4:2:0", 40, 50)
    header = headers.read(data)
    frame = frame_at(data)
    (end,) = (end for _, at, end in header.segments if at == frame)
    cases = {
        "two frames": inserted(data, data[frame:end]),
        "no frame": data[:frame] + data[end:],
        "sampling 0": data[: frame + 11] + b"\x02" + data[frame + 12 :],
        "sampling 5": data[: frame + 11] + b"\x52" + data[frame + 12 :],
        "more than ten blocks": data[: frame + 11] + b"\x44" + data[frame + 12 :],
        "table 4": data[: header.scan_at + 6] + b"\x40" + data[header.scan_at + 7 :],
        "table 15": data[: header.scan_at + 6] + b"\x0f" + data[header.scan_at + 7 :],
        "Huffman table 4": inserted(data, b"\xff\xc4\0\x14\x04\x01" + bytes(15) + b"\0"),
        "too many symbols": inserted(data, b"\xff\xc4\0\x13\0" + b"\xff" * 16),
        "half a quantization table": inserted(data, b"\xff\xdb\0\x13\0" + bytes(16)),
        "length 1": inserted(data, b"\xff\xe5\0\x01"),
        "no marker": inserted(data, b"\0\0"),
    }
    for name, other in cases.items():
        with pytest.raises(ValueError, match=r"JPEG|unpack"):
            pytest.fail(f"{name}: {headers.read(other)}")


def test_no_header_hides_behind_what_libjpeg_passes_over(jpeg):
    """FF 00 with a length: libjpeg sees no segment there, but the frame of 65,535 x 65,535 within, which hides ours."""
    data = jpeg("4:2:0", 40, 50)
    frame = frame_at(data)
    huge = data[frame : frame + 5] + b"\xff\xff\xff\xff" + data[frame + 9 : frame + 19]
    hidden = b"\xff\0" + struct.pack(">H", 2 + len(huge) + 4) + huge + b"\xff\xe5" + struct.pack(">H", 2 + frame - 2 + 19)
    with pytest.raises(ValueError, match="no marker"):
        headers.read(inserted(data, hidden))


def test_fill_bytes_and_markers_without_length(jpeg):
    data = jpeg("4:2:0", 40, 50)
    header = headers.read(inserted(data, b"\xff\xff\xff\x01\xff\xff"))
    assert header._replace(segments=[]) == headers.read(data)._replace(segments=[])
