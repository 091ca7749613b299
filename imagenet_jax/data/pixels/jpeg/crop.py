"""The pixels of a crop of a JPEG, straight from its compressed data: numba passes over the rest. Needs the extra `[fast]`."""

import functools
import itertools
import math
import mmap
import threading
from typing import NamedTuple

import cv2
import numpy as np

from imagenet_jax.data.pixels.jpeg import codes, colours, entropy
from imagenet_jax.data.pixels.jpeg.cut import region_of
from imagenet_jax.data.pixels.jpeg.header import Component, Header

KEPT = 1 << 20  # bytes of the largest array that a thread keeps: larger images would hold ever more memory through the run


class _Scratch(threading.local):
    """What a thread keeps from image to image: fresh memory would cost 40 us an image in page faults."""

    def __init__(self) -> None:
        self.fast = np.empty((8, 1 << codes.BITS), np.uint64)
        self.limits, self.offsets = np.empty((2, 8, 17), np.int64)
        self.symbols = np.empty((8, 256), np.uint8)
        self.bytes: dict[str, np.ndarray] = {}


_scratch = _Scratch()


def supported(header: Header) -> bool:
    """Whether `decode_crop` takes it: sequential, 8 bits, grey or YCbCr with chroma at full or half resolution.

    That is 601 of the 603 images of a sample of ImageNet; the others are a CMYK JPEG and a PNG.
    """
    defined = {place for place, _ in header.quantization}
    rgb = len(header.components) > 1 and header.adobe_transform == 0
    return (
        header.sequential and not rgb and _supported(header.components) and {c.quantization for c in header.components} <= defined
    )


@functools.lru_cache(256)
def _supported(components: tuple[Component, ...]) -> bool:
    first, *chroma = components
    if [c.id for c in components] == [0x52, 0x47, 0x42] or len(chroma) not in (0, 2):  # the letters RGB
        return False
    return not chroma or (first.h <= 2 and first.v <= 2 and all((c.h, c.v) == (1, 1) for c in chroma))


def decode_crop(data: bytes, header: Header, y: int, x: int, height: int, width: int) -> np.ndarray:
    """RGB, uint8 (height, width, 3), of pixels [y, y + height) x [x, x + width) of a `supported` JPEG, which lie inside it.

    It may be the thread's own memory: it holds until its next image. Within four levels of libjpeg's accurate decoder in every
    pixel, 0.06 on average. Raises ValueError for damaged data, as far as the crop needs them, and for a file without an end.
    """
    scan = scan_of(data, header)  # first: it checks the size
    top, bottom, left, right = region = region_of(header, y, x, height, width)
    blocks, quant, sides = _layout(header.components, header.quantization)
    shapes = [(down * (bottom - top), across * (right - left)) for down, across in sides]
    begins = [0, *itertools.accumulate(h * w for h, w in shapes)]
    planes = _bytes("planes", begins[-1] + colours.SPARE)
    places = np.array([(begin, w) for begin, (_, w) in zip(begins, shapes, strict=False)], np.int64)
    if not entropy.decode(scan, *header.mcus, region, blocks, quant, places, planes):
        raise ValueError("JPEG: the compressed data are damaged")
    y, x = y - top * header.mcu[0], x - left * header.mcu[1]
    if len(shapes) == 1:
        grey = planes[: begins[-1]].reshape(shapes[0])
        return cv2.cvtColor(grey[y : y + height, x : x + width], cv2.COLOR_GRAY2RGB)
    ratio = sides[0][0] // sides[1][0], sides[0][1] // sides[1][1]
    # What lies beyond the image's edge must not be interpolated with.
    limits = -(-header.height // ratio[0]) - top * sides[1][0], -(-header.width // ratio[1]) - left * sides[1][1]
    apart = colours.row_bytes(width + ratio[1] - 1)
    pixels = _bytes("rgb", height * apart + colours.SPARE)
    begin = colours.rgb(planes, places, limits, ratio, y, x, height, width, pixels)
    return np.ndarray((height, width, 3), np.uint8, pixels, begin, (apart, 3, 1))


class Scan(NamedTuple):
    """What the kernels need of an image's entropy-coded data. The larger arrays are the thread's, until its next image."""

    stream: np.ndarray  # uint8, without markers and stuffed zeros
    count: int  # bytes of it
    starts: np.ndarray  # int64: where each restart segment begins
    segments: int
    interval: int  # MCUs of a segment
    fast: np.ndarray  # uint64 (8, 1 << codes.BITS): the tables 0-3 for DC, 4-7 for AC
    limits: np.ndarray  # int64 (8, 17): 16 bits that are less begin with a code of that length or a shorter one
    offsets: np.ndarray  # int64 (8, 17): from a code of that length to the place of its symbol
    symbols: np.ndarray  # uint8 (8, 256)


def scan_of(data: bytes, header: Header) -> Scan:
    """Make a sequential JPEG's data ready. Raises ValueError where its end or a Huffman table is missing or damaged."""
    mcus = math.prod(header.mcus)
    if mcus * len(header.components) > 4 * len(data):  # a block takes two bits or more; what follows allocates by this
        raise ValueError("JPEG: it is cut off: fewer bytes than its size asks for")
    interval = header.restart_interval or mcus
    wanted = -(-mcus // interval)
    stream = _bytes("stream", len(data) + 2 * codes.PADDING)
    starts = np.empty(wanted + 1, np.int64)
    count, segments = codes.clean(np.frombuffer(data, np.uint8), header.data_at, stream, starts)
    if count < 0:
        raise ValueError("JPEG: it is cut off: no end of image")
    if segments != wanted:
        raise ValueError(f"JPEG: {segments - 1} restart markers, wanted {wanted - 1}")
    tables = {(place >> 4) * 4 + (place & 15): lengths + symbols for place, lengths, symbols in header.huffman}
    if not all(c.dc in tables and 4 + c.ac in tables for c in header.components):
        raise ValueError("JPEG: a Huffman table is missing")
    rows = b"".join([bytes((t,)) + body.ljust(16 + 256, b"\0") for t, body in tables.items()])
    fast, limits, offsets, symbols = _scratch.fast, _scratch.limits, _scratch.offsets, _scratch.symbols
    if not codes.tables(np.frombuffer(rows, np.uint8).reshape(-1, 1 + 16 + 256), fast, limits, offsets, symbols):
        raise ValueError("JPEG: a Huffman table is damaged")
    return Scan(stream, count, starts, segments, interval, fast, limits, offsets, symbols)


def _bytes(name: str, size: int) -> np.ndarray:
    """This thread's array of that name, uint8, of at least that size."""
    if size > KEPT:
        return np.frombuffer(mmap.mmap(-1, size), np.uint8)  # given back to the system at once, where malloc may keep it
    if name not in _scratch.bytes:
        _scratch.bytes[name] = np.empty(KEPT, np.uint8)
    return _scratch.bytes[name]


def blocks_of(components: tuple[Component, ...]) -> list[tuple[int, int, int, int, int]]:
    """(component, DC table, AC table, y, x) of each block of an MCU, in the order of the scan; y and x in pixels."""
    if len(components) == 1:
        return [(0, components[0].dc, 4 + components[0].ac, 0, 0)]
    return [(i, c.dc, 4 + c.ac, 8 * v, 8 * h) for i, c in enumerate(components) for v in range(c.v) for h in range(c.h)]


@functools.lru_cache(256)  # most images share these tables with many others: 20 us an image
def _layout(
    components: tuple[Component, ...], quantization: tuple[tuple[int, bytes], ...]
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """For entropy.decode: `blocks`, `quant`, and pixels of an MCU down and across by component."""
    single = len(components) == 1
    sides = [(8, 8) if single else (8 * c.v, 8 * c.h) for c in components]
    blocks = np.array([(*b, *sides[b[0]]) for b in blocks_of(components)], np.int64)
    factors = {place: np.frombuffer(body, ">u2" if len(body) > 64 else np.uint8) for place, body in quantization}
    return blocks, np.array([factors[c.quantization] for c in components], np.float32), sides
