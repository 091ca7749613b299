"""The pixels of a crop of a JPEG, straight from its compressed data: numba passes over the rest. Needs the extra `[fast]`."""

import threading

import cv2
import numpy as np

from imagenet_jax.data.jpeg import kernels
from imagenet_jax.data.jpeg.cut import region_of
from imagenet_jax.data.jpeg.header import Header

_scratch = threading.local()


def supported(header: Header) -> bool:
    """Whether `decode_crop` takes it: sequential, 8 bits, grey or YCbCr with chroma at full or half resolution.

    That is 601 of the 603 images of a sample of ImageNet; the others are a CMYK JPEG and a PNG.
    """
    components = header.components
    if not header.sequential or len(components) not in (1, 3):
        return False
    if any(c.quantization not in dict(header.quantization) or c.dc > 3 or c.ac > 3 for c in components):
        return False
    if len(components) == 1:
        return True
    rgb = header.adobe_transform == 0 or [c.id for c in components] == [0x52, 0x47, 0x42]
    first, *chroma = components
    return not rgb and first.h <= 2 and first.v <= 2 and all((c.h, c.v) == (1, 1) for c in chroma)


def decode_crop(data: bytes, header: Header, y: int, x: int, height: int, width: int) -> np.ndarray:
    """Pixels [y, y + height) x [x, x + width) of a `supported` JPEG, which lie inside it: uint8 (height, width, 3), RGB.

    Within two levels of libjpeg's accurate decoder in every pixel, 0.03 on average. Raises ValueError for damaged data, as far as
    the crop needs them, and for a file without an end.
    """
    region = region_of(header, y, x, height, width)
    planes = _planes(data, header, region)
    return _rgb(planes, header, (region[0] * header.mcu[0], region[2] * header.mcu[1]), (y, x, height, width))


def scan_of(data: bytes, header: Header, extra: int = 0) -> tuple:
    """What the kernels need of a scan: (stream, bytes, starts, segments, interval), and (fast, limits, offsets, symbols).

    Raises ValueError where the end or a Huffman table is missing or damaged. The arrays are this thread's, good until its next call.
    """
    rows, columns = header.mcus
    interval = header.restart_interval or rows * columns
    wanted = -(-rows * columns // interval)
    room = len(data) + 2 * kernels.PADDING
    if getattr(_scratch, "room", 0) < room:
        _scratch.stream, _scratch.room = np.empty(room, np.uint8), room
        _scratch.fast = np.empty((8, 1 << kernels.BITS), np.uint64)
    starts = np.empty(wanted + 1, np.int64)
    count, segments = kernels.clean(np.frombuffer(data, np.uint8), header.data_at, _scratch.stream, starts)
    if count < 0:
        raise ValueError("JPEG: it is cut off: no end of image")
    if segments != wanted:
        raise ValueError(f"JPEG: {segments - 1} restart markers, wanted {wanted - 1}")
    counts, symbols, used = np.zeros((8, 16), np.uint8), np.zeros((8, 256), np.uint8), np.zeros(8, np.bool_)
    for place, lengths, values in header.huffman:
        t = (place >> 4) * 4 + (place & 15)
        if place & 15 > 3 or place >> 4 > 1:
            raise ValueError("JPEG: a Huffman table has no such place")
        counts[t] = np.frombuffer(lengths, np.uint8)
        symbols[t, : len(values)] = np.frombuffer(values, np.uint8)
        used[t] = True
    if not all(used[c.dc] and used[4 + c.ac] for c in header.components):
        raise ValueError("JPEG: a Huffman table is missing")
    limits, offsets = np.zeros((8, 17), np.int64), np.zeros((8, 17), np.int64)
    if not kernels.tables(counts, symbols, used, _scratch.fast, limits, offsets):
        raise ValueError("JPEG: a Huffman table is damaged")
    return (_scratch.stream, count, starts, segments, interval), (_scratch.fast, limits, offsets, symbols)


def blocks_of(header: Header) -> list[tuple[int, int, int, int, int]]:
    """(component, DC table, AC table, y, x) of each block of an MCU, in the order of the scan; y and x in pixels."""
    if len(header.components) == 1:
        (only,) = header.components
        return [(0, only.dc, 4 + only.ac, 0, 0)]
    return [
        (i, c.dc, 4 + c.ac, 8 * v, 8 * h) for i, c in enumerate(header.components) for v in range(c.v) for h in range(c.h)
    ]  # fmt: skip


def _planes(data: bytes, header: Header, region: tuple[int, int, int, int]) -> list[np.ndarray]:
    top, bottom, left, right = region
    scan, codes = scan_of(data, header)
    single = len(header.components) == 1
    shapes = [(8 * (1 if single else c.v) * (bottom - top), 8 * (1 if single else c.h) * (right - left)) for c in header.components]
    begins = np.cumsum([0] + [h * w for h, w in shapes])
    flat = np.empty(begins[-1], np.uint8)
    blocks = np.array(
        [
            (*b, shapes[b[0]][0] // (bottom - top), shapes[b[0]][1] // (right - left), begins[b[0]], shapes[b[0]][1])
            for b in blocks_of(header)
        ],
        np.int64,
    )
    factors = dict(header.quantization)
    quant = np.array([factors[c.quantization] for c in header.components], np.float32)
    rows, columns = header.mcus
    if not kernels.decode(*scan, rows, columns, region, blocks, quant, *codes, flat):
        raise ValueError("JPEG: the compressed data are damaged")
    return [flat[b : b + h * w].reshape(h, w) for b, (h, w) in zip(begins, shapes, strict=False)]


def _rgb(
    planes: list[np.ndarray], header: Header, origin: tuple[int, int], box: tuple[int, int, int, int]
) -> np.ndarray:  # fmt: skip
    y, x, height, width = box
    y, x = y - origin[0], x - origin[1]
    # What lies beyond the image's edge must not be interpolated with.
    inside_y, inside_x = header.height - origin[0], header.width - origin[1]
    full = planes[0][:inside_y, :inside_x].shape
    parts = []
    for plane in planes:
        if plane.shape != planes[0].shape:  # half resolution: linear interpolation, as libjpeg's "fancy upsampling" (3/4, 1/4)
            down = planes[0].shape[0] // plane.shape[0], planes[0].shape[1] // plane.shape[1]
            used = plane[: -(-full[0] // down[0]), : -(-full[1] // down[1])]
            plane = cv2.resize(used, (used.shape[1] * down[1], used.shape[0] * down[0]), interpolation=cv2.INTER_LINEAR)
        parts.append(plane[y : y + height, x : x + width])
    if len(parts) == 1:
        return cv2.cvtColor(parts[0], cv2.COLOR_GRAY2RGB)
    merged = cv2.merge([parts[0], parts[2], parts[1]])
    return cv2.cvtColor(merged, cv2.COLOR_YCrCb2RGB, dst=merged)
