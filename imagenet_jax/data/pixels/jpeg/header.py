"""What the headers of a JPEG say, read without decoding anything (ITU-T T.81, annex B).

The bytes are hostile: every length is checked against what is there, and no number in them is used to allocate anything.
"""

import functools
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

SOI, EOI, SOS, DQT, DHT, DRI, DNL, COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xDC, 0xFE
FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # SOF markers
SEQUENTIAL = (0xC0, 0xC1)  # with Huffman codes: what can be cut
APP0, APP15, APP14_ADOBE = 0xE0, 0xEF, 0xEE


class Component(NamedTuple):
    """One colour channel: sampling factors, and the tables that decode it."""

    id: int
    h: int  # blocks of an MCU, horizontally
    v: int
    quantization: int
    dc: int = 0
    ac: int = 0


class Header(NamedTuple):
    """The headers up to the first scan. Positions count bytes of the file."""

    segments: list[tuple[int, int, int]]  # (marker, where it stands, where the segment ends), the last one is SOS
    frame: int = 0  # SOF marker
    precision: int = 0
    height: int = 0
    width: int = 0
    components: tuple[Component, ...] = ()
    mcu: tuple[int, int] = (8, 8)  # height and width in pixels
    restart_interval: int = 0  # MCUs; 0: none
    huffman: tuple[tuple[int, bytes, bytes], ...] = ()  # (class and destination, 16 counts, symbols), in order of definition
    quantization: tuple[tuple[int, bytes], ...] = ()  # (destination, 64 factors in zigzag order, of one or two bytes), in order
    adobe_transform: int | None = None  # Adobe marker: 0 RGB or CMYK, 1 YCbCr, 2 YCCK
    interleaved: bool = False  # one scan holds all components

    @property
    def scan_at(self) -> int:
        """Where the scan's header stands."""
        return self.segments[-1][1]

    @property
    def data_at(self) -> int:
        """Where the entropy-coded data begin."""
        return self.segments[-1][2]

    @property
    def mcus(self) -> tuple[int, int]:
        """Rows and columns of MCUs."""
        height, width = self.mcu
        return -(-self.height // height), -(-self.width // width)

    @property
    def sequential(self) -> bool:
        """Whether each MCU follows the one before in one scan of 8-bit Huffman codes, so that MCUs can be cut out."""
        return self.frame in SEQUENTIAL and self.precision == 8 and self.interleaved and len(self.components) in (1, 3, 4)


def read(data: bytes) -> Header:
    """The headers of a JPEG. Raises ValueError where they are damaged, cut off, or none."""
    try:
        return _read(data)
    except (IndexError, struct.error):
        raise ValueError("JPEG: the headers are cut off or damaged") from None


def segments(data: bytes) -> list[tuple[int, int, int]]:
    """(marker, position of its 0xFF, position behind the segment) up to and with the first SOS. Raises ValueError, IndexError."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("JPEG: no start of image")
    found = []
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"JPEG: no marker at byte {at}")
        while data[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker = data[at + 1]
        if marker == EOI:
            raise ValueError("JPEG: ends before any scan")
        if marker == 0:  # libjpeg passes over it and would see other headers than we
            raise ValueError(f"JPEG: no marker at byte {at}")
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # TEM, RSTn, SOI: no length
            end = at + 2
        else:
            length = data[at + 2] << 8 | data[at + 3]
            end = at + 2 + length
            if length < 2 or end > len(data):
                raise ValueError("JPEG: a header is cut off or damaged")
        found.append((marker, at, end))
        if marker == SOS:
            return found
        at = end


def _read(data: bytes) -> Header:
    found: dict[str, Any] = {"segments": segments(data)}
    huffman: list[tuple[int, bytes, bytes]] = []
    quantization: list[tuple[int, bytes]] = []
    components: tuple[Component, ...] = ()
    for marker, at, end in found["segments"]:
        if marker == DHT:
            huffman += _huffman(data[at + 4 : end])
        elif marker == DQT:
            quantization += _quantization(data[at + 4 : end])
        elif marker in FRAMES:
            if components:
                raise ValueError("JPEG: two frame headers")
            components = _components(data[at + 9 : end])
            found["frame"] = marker
            found["precision"], found["height"], found["width"] = struct.unpack_from(">BHH", data, at + 4)
        elif marker == DRI:
            (found["restart_interval"],) = struct.unpack_from(">H", data, at + 4)
        elif marker == APP14_ADOBE and data[at + 4 : at + 9] == b"Adobe" and end - at >= 16:
            found["adobe_transform"] = data[at + 15]
        elif marker == SOS:
            found["interleaved"], components = _scanned(components, data[at + 4 : end])
    if not components or not found["height"] or not found["width"]:
        raise ValueError("JPEG: no frame header, or an image without pixels")
    mcu = _mcu(components)
    return Header(components=components, mcu=mcu, huffman=tuple(huffman), quantization=tuple(quantization), **found)


@functools.lru_cache(256)  # most images have the same bytes here: 8 us an image
def _components(body: bytes) -> tuple[Component, ...]:
    """Of a frame header, from its count of components on."""
    components = tuple(
        [Component(body[i], body[i + 1] >> 4, body[i + 1] & 15, body[i + 2]) for i in range(1, 1 + 3 * body[0], 3)]
    )  # fmt: skip
    if any(not 1 <= c.h <= 4 or not 1 <= c.v <= 4 for c in components):
        raise ValueError("JPEG: sampling factors are damaged")
    return components


@functools.lru_cache(256)
def _mcu(components: tuple[Component, ...]) -> tuple[int, int]:
    if len(components) == 1:  # a single component is never interleaved: its MCU is one block (T.81, A.2.2)
        return 8, 8
    return 8 * max(c.v for c in components), 8 * max(c.h for c in components)


@functools.lru_cache(256)
def _scanned(components: tuple[Component, ...], body: bytes) -> tuple[bool, tuple[Component, ...]]:
    """Whether the scan holds all components, and these with their Huffman tables if it does."""
    scan = [(body[1 + 2 * i], body[2 + 2 * i]) for i in range(body[0])]
    if [name for name, _ in scan] != [c.id for c in components]:
        return False, components
    if any(t >> 4 > 3 or t & 15 > 3 for _, t in scan):
        raise ValueError("JPEG: a scan names a Huffman table that there cannot be")
    if len(scan) > 1 and sum(c.h * c.v for c in components) > 10:  # T.81, B.2.3
        raise ValueError("JPEG: more than ten blocks in an MCU")
    return True, tuple([Component(*c[:4], t >> 4, t & 15) for c, (_, t) in zip(components, scan, strict=True)])


def _huffman(body: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    while body:
        counts = body[1:17]
        symbols = body[17 : 17 + sum(counts)]
        if body[0] & 0xEF > 3 or len(counts) < 16 or len(symbols) < sum(counts) or len(symbols) > 256:
            raise ValueError("JPEG: a Huffman table is damaged")
        yield body[0], counts, symbols
        body = body[17 + len(symbols) :]


def _quantization(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        end = 129 if body[0] >> 4 else 65
        if len(body) < end:
            raise ValueError("JPEG: a quantization table is cut off")
        yield body[0] & 15, body[1:end]
        body = body[end:]
