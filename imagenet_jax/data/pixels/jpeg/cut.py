"""Cutting a crop out of a JPEG without decoding it, where the file has restart markers that divide its rows of MCUs.

Between two restart markers the data decode by themselves, so a crop is a matter of copying: new height and width in the header, one
slice of segments a row, markers numbered anew. What comes out is an ordinary JPEG, and any decoder makes the same pixels of it.
"""

import struct

import numpy as np

from imagenet_jax.data.pixels.jpeg import header as headers
from imagenet_jax.data.pixels.jpeg.header import Header

# A header segment of our own: the bytes of each restart segment, so that nobody need search for the markers (70 us an image).
# Others pass over it. It is checked against the markers themselves before it is believed.
LENGTHS_MARKER = 0xEB  # APP11
LENGTHS_NAME = b"RSTLEN\0\0"
_KEPT = (headers.DQT, headers.DHT, headers.DRI, headers.APP0, headers.APP14_ADOBE, *headers.FRAMES, headers.SOS)


def possible(header: Header) -> bool:
    """Whether `cut` can do anything with the file: sequential, with restart markers at the same places of every row."""
    return header.sequential and 0 < header.restart_interval <= header.mcus[1] and header.mcus[1] % header.restart_interval == 0


def region_of(header: Header, y: int, x: int, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the MCUs that pixels [y, y + height) x [x, x + width) depend on.

    Chroma at less than full resolution is interpolated, so a pixel at the edge of an MCU needs the next MCU's chroma too.
    """
    mcu_height, mcu_width = header.mcu
    rows, columns = header.mcus
    up, across = int(mcu_height > 8), int(mcu_width > 8)
    return (
        max(0, y - up) // mcu_height,
        min(rows, -(-(y + height + up) // mcu_height)),
        max(0, x - across) // mcu_width,
        min(columns, -(-(x + width + across) // mcu_width)),
    )


def cut(data: bytes, header: Header, y: int, x: int, height: int, width: int) -> tuple[bytes, int, int, int, int]:
    """A smaller JPEG that holds pixels [y, y + height) x [x, x + width), where (y, x) lies in it, and its height and width.

    For a file that is `possible`. Raises ValueError where the markers are not those that the header promises.
    """
    mcu_height, mcu_width = header.mcu
    rows, columns = header.mcus
    top, bottom, left, right = region_of(header, y, x, height, width)
    interval = header.restart_interval
    first, last = left // interval, -(-right // interval)  # segments of each row
    bounds = segment_bounds(data, header)
    grid = np.arange(rows * (columns // interval)).reshape(rows, -1)[top:bottom]
    begins, ends = bounds[grid[:, first]], bounds[grid[:, last - 1] + 1]
    view = memoryview(data)
    left, right = first * interval, min(last * interval, columns)
    size = min(bottom * mcu_height, header.height) - top * mcu_height, min(right * mcu_width, header.width) - left * mcu_width
    head = _head(data, header, size)
    out = bytearray(b"").join([head, *(view[b:e] for b, e in zip(begins.tolist(), ends.tolist(), strict=True))])
    marks = len(head) + np.cumsum(np.diff(bounds)[grid[:, first:last]].ravel()) - 1
    numbers = np.frombuffer(out, np.uint8)
    numbers[marks] = 0xD0 + np.arange(len(marks)) % 8
    numbers[marks[-1] - 1 :] = (0xFF, headers.EOI)
    return bytes(out), y - top * mcu_height, x - left * mcu_width, *size


def segment_bounds(data: bytes, header: Header) -> np.ndarray:
    """Where each restart segment begins, each with the marker behind it, and where the last one ends: int64 (segments + 1,)."""
    rows, columns = header.mcus
    wanted = -(-rows * columns // header.restart_interval)
    found = np.frombuffer(data, np.uint8)
    lengths = _lengths(data, header)
    if lengths is None or len(lengths) != wanted:
        body = found[header.data_at :]
        place = np.flatnonzero(body[:-1] == 0xFF)
        after = body[place + 1]
        place = place[(after & 0xF8 == 0xD0) | (after == headers.EOI)] + 2
        ends = place[: int(np.argmax(after[(after & 0xF8 == 0xD0) | (after == headers.EOI)] == headers.EOI)) + 1]
        bounds = header.data_at + np.concatenate([[0], ends])
    else:
        bounds = header.data_at + np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if len(bounds) != wanted + 1 or bounds[-1] > len(data):
        raise ValueError(f"JPEG: {len(bounds) - 1} restart segments, wanted {wanted}")
    marks = found[bounds[1:] - 1]
    numbered = np.array_equal(marks[:-1], 0xD0 + np.arange(wanted - 1) % 8)
    if not numbered or marks[-1] != headers.EOI or not (found[bounds[1:] - 2] == 0xFF).all():
        raise ValueError("JPEG: the restart markers are not in order, or the end is missing")
    return bounds


def _lengths(data: bytes, header: Header) -> np.ndarray | None:
    for marker, at, end in header.segments:
        begin = at + 4 + len(LENGTHS_NAME)
        if marker == LENGTHS_MARKER and data[at + 4 : begin] == LENGTHS_NAME and (end - begin) % 2 == 0:
            return np.frombuffer(data[begin:end], ">u2")
    return None


def _head(data: bytes, header: Header, size: tuple[int, int]) -> bytes:
    """The headers that decoding needs, with another size."""
    parts = [b"\xff\xd8"]
    for marker, at, end in header.segments:
        if marker in headers.FRAMES:
            parts.append(data[at : at + 5] + struct.pack(">HH", *size) + data[at + 9 : end])
        elif marker in _KEPT:
            parts.append(data[at:end])
    return b"".join(parts)
