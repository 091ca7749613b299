"""Restart markers for JPEGs that have none: the same coefficients written anew, so that crops can be cut out (cut.py).

Lossless: the result is decoded again and its coefficients compared before it is returned. Huffman codes are made anew for each file
(T.81, K.2), which pays for the markers: +1.1 % in size on 603 images of ImageNet, most of it the lengths of the segments, 9 ms an
image on one core of an AMD EPYC. Needs the extra `[prepare]` (numba).
"""

import heapq
import itertools
import math
import struct

import numpy as np

from imagenet_jax.data.pixels.jpeg import crop, cut, encode, entropy
from imagenet_jax.data.pixels.jpeg import header as headers
from imagenet_jax.data.pixels.jpeg.header import Header

TARGET = 64  # pixels between markers
LEAST = 24  # pixels; with less, the markers and the absolute DC values behind them cost more than 5 % in size


def add_markers(data: bytes) -> bytes:
    """The JPEG with restart markers at equal distances in every row of MCUs, near 64 pixels where the width has such a divisor.

    What is not needed for the pixels is kept too, but for bytes behind the end mark. Raises ValueError, with the reason, for a JPEG
    that is damaged or cannot be cut: progressive, lossless, arithmetic or 12-bit codes, several scans.
    """
    header = headers.read(data)
    if not header.sequential:
        kind = "progressive" if header.frame == 0xC2 else "not a sequential JPEG of 8 bits in one scan"
        raise ValueError(f"{kind}: it has no MCUs that could be cut out")
    coefficients = read_coefficients(data, header)
    interval = choose_interval(header.mcus[1], header.mcu[1])
    blocks = np.array([(i, dc, ac) for i, dc, ac, _, _ in crop.blocks_of(header.components)], np.int64)
    counts = encode.count_symbols(coefficients, blocks, interval)
    codes = {int(t): optimal_code(counts[t]) for t in np.flatnonzero(counts.any(1))}
    marked = _assemble(data, header, interval, *_encode(coefficients, blocks, interval, codes, counts), codes)
    again = headers.read(marked)
    if not np.array_equal(read_coefficients(marked, again), coefficients):
        raise ValueError("its coefficients did not survive, which is a fault of imagenet_jax")
    return marked


def read_coefficients(data: bytes, header: Header) -> np.ndarray:
    """The quantized coefficients of a sequential JPEG in the order of its scan: int16 (blocks, 64), zigzag. Raises ValueError."""
    mcus = math.prod(header.mcus)
    blocks = np.array([(i, dc, ac) for i, dc, ac, _, _ in crop.blocks_of(header.components)], np.int64)
    scan = crop.scan_of(data, header)  # first, since it holds the size against the bytes that are there
    out = np.zeros((mcus * len(blocks), 64), np.int16)
    if not entropy.coefficients(scan, mcus, blocks, out):
        raise ValueError("JPEG: the compressed data are damaged")
    return out


def choose_interval(columns: int, mcu_width: int) -> int:
    """The divisor of `columns` (MCUs in a row) that is nearest to TARGET pixels, in ratio; the row itself where that is prime."""
    divisors = [d for d in range(1, columns + 1) if columns % d == 0 and (d * mcu_width >= LEAST or d == columns)]
    return min(divisors, key=lambda d: abs(math.log(d * mcu_width / TARGET)))


def optimal_code(counts: np.ndarray) -> tuple[bytes, bytes]:
    """(number of codes of length 1 .. 16, symbols by length) of the Huffman code for these counts (256,), by T.81, K.2.

    No code is all ones, and none is longer than 16 bits.
    """
    heap = [(int(n), s, [s]) for s, n in enumerate(counts) if n]
    heap.append((0, 256, [256]))  # takes the code of all ones
    heapq.heapify(heap)
    length = dict.fromkeys((s for _, s, _ in heap), 0)
    order = itertools.count(257)
    while len(heap) > 1:
        n, _, some = heapq.heappop(heap)
        m, _, more = heapq.heappop(heap)
        for symbol in some + more:
            length[symbol] += 1
        heapq.heappush(heap, (n + m, next(order), some + more))
    found = np.bincount([*length.values(), 16])
    found[16] -= 1
    for deep in range(len(found) - 1, 16, -1):  # pairs of codes that are too long move up (T.81, figure K.3)
        while found[deep]:
            shorter = max(i for i in range(1, deep - 1) if found[i])
            found[deep] -= 2
            found[deep - 1] += 1
            found[shorter + 1] += 2
            found[shorter] -= 1
    longest = max(i for i in range(1, 17) if found[i])
    found[longest] -= 1  # the place of 256
    symbols = sorted((s for s in length if s < 256), key=lambda s: (length[s], s))
    return bytes(found[1:17].tolist()), bytes(symbols)


def _encode(
    coefficients: np.ndarray, blocks: np.ndarray, interval: int, codes: dict[int, tuple[bytes, bytes]], counts: np.ndarray
) -> tuple[bytes, np.ndarray]:
    """The entropy-coded data with markers, and the bytes of each segment with its marker."""
    words, lengths = np.zeros((8, 256), np.int64), np.zeros((8, 256), np.int64)
    bits = 0
    for t, (numbers, symbols) in codes.items():
        code = place = 0
        for length, number in enumerate(numbers, 1):
            for symbol in symbols[place : place + number]:
                words[t, symbol], lengths[t, symbol] = code, length
                code += 1
                bits += int(counts[t, symbol]) * (length + (symbol if t < 4 else symbol & 15))
            place += number
            code <<= 1
    segments = -(-len(coefficients) // (len(blocks) * interval))
    out = np.empty(bits // 4 + 4 * segments + 16, np.uint8)  # twice the bytes: each might be stuffed
    sizes = np.zeros(segments, np.int64)
    end = encode.encode(coefficients, blocks, interval, words, lengths, out, sizes)
    return out[:end].tobytes(), sizes


def _assemble(
    data: bytes, header: Header, interval: int, scan: bytes, sizes: np.ndarray, codes: dict[int, tuple[bytes, bytes]]
) -> bytes:  # fmt: skip
    parts = [b"\xff\xd8"]
    for marker, at, end in header.segments[:-1]:
        ours = marker == cut.LENGTHS_MARKER and data[at + 4 : end].startswith(cut.LENGTHS_NAME)
        if marker not in (headers.DHT, headers.DRI) and not ours:
            parts.append(data[at:end])
    if sizes.max() < 1 << 16 and 2 * len(sizes) < 65_000:
        parts.append(_segment(cut.LENGTHS_MARKER, cut.LENGTHS_NAME + sizes.astype(">u2").tobytes()))
    for t, (numbers, symbols) in sorted(codes.items()):
        parts.append(_segment(headers.DHT, bytes([t // 4 << 4 | t % 4]) + numbers + symbols))
    parts.append(_segment(headers.DRI, struct.pack(">H", interval)))
    return b"".join([*parts, data[header.scan_at : header.data_at], scan])


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(body)) + body
