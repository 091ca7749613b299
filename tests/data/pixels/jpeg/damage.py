"""Decode damaged JPEGs: `python damage.py SEED COUNT FILE...`, a process of its own, since a mistake in machine.py would end it.

The arrays that numba writes to and reads from by address end where memory ends (a page that nobody may touch lies behind them), and
memory is limited, so that what a header claims cannot be allocated. Prints how many images came out, and how many errors.
"""

import collections
import ctypes
import functools
import json
import mmap
import pathlib
import resource
import struct
import sys

import numpy as np

from imagenet_jax.data.augmentation.augment import View
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.pixels.jpeg import crop, restart
from imagenet_jax.data.pixels.jpeg import header as headers

MOST = 1_000_000  # pixels


def guarded(name, nbytes):
    """In the place of crop._bytes."""
    pages = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + pages), mmap.PAGESIZE, 0):
        raise OSError("mprotect")
    array = np.frombuffer(memory, np.uint8)[pages - nbytes : pages]
    array[:] = 0xA5
    return array


def parts_of(data):
    """The segments of the header, and the rest."""
    found = headers.segments(data)
    return [data[at:end] for _, at, end in found], data[found[-1][2] :]


def flip(random, data):
    """Other bits, anywhere, in the header or in the scan."""
    begin, end = [(2, len(data)), (2, headers.segments(data)[-1][2]), (headers.segments(data)[-1][2], len(data))][
        random.integers(3)
    ]
    out = bytearray(data)
    for at in random.integers(begin, end, random.integers(1, 8)):
        out[at] ^= 1 << random.integers(8) if random.integers(2) else random.integers(256)
    return bytes(out)


def lose(random, data):
    """A stretch cut off, left out, or twice."""
    a, b = sorted(random.integers(2, len(data), 2).tolist())
    b = min(b, a + int(random.integers(1, 40)))
    return [data[:a], data[:a] + data[b:], data[:b] + data[a:]][random.integers(3)]


def reorder(random, data):
    """A header segment lost, twice or elsewhere, in the same file."""
    parts, scan = parts_of(data)
    one = parts.pop(random.integers(len(parts)))
    for _ in range(random.integers(3)):
        parts.insert(random.integers(len(parts) + 1), one)
    return b"\xff\xd8" + b"".join(parts) + scan


def lie(random, data):
    """A header that is well-formed and wrong: size, sampling, tables named, restart interval, Huffman codes, quantization."""
    parts, scan = parts_of(data)
    for _ in range(random.integers(1, 4)):
        i = int(random.integers(len(parts)))
        part = bytearray(parts[i])
        marker = part[1]
        if marker in headers.FRAMES:
            what = random.integers(4)
            if what == 0:
                part[5:9] = struct.pack(">HH", *random.choice([0, 1, 7, 8, 9, 16, 48, 64, 65, 100, 1000, 8192, 65535], 2).tolist())
            elif what == 1:
                part[11 + 3 * random.integers(part[9])] = random.choice([0x11, 0x12, 0x21, 0x22, 0x14, 0x41, 0x44, 0x33, 0x00])
            elif what == 2:
                part[12 + 3 * random.integers(part[9])] = random.integers(6)
            else:
                part[1] = random.choice([0xC0, 0xC1, 0xC2, 0xC9])
        elif marker == headers.SOS:
            part[6 + 2 * random.integers(part[4])] = random.choice(
                [0x00, 0x11, 0x01, 0x10, 0x22, 0x33, 0x44, 0x55, 0x77, 0x99, 0xFF]
            )
        elif marker == headers.DRI:
            part[4:6] = struct.pack(">H", random.choice([0, 1, 2, 3, 5, 8, 1000, 65535]))
        elif marker == headers.DHT:
            part[4] = random.choice([part[4], part[4], 0x00, 0x01, 0x10, 0x11, 0x03, 0x13, 0x04, 0x20])
            if random.integers(2):  # any symbols: sizes of 15, runs of 15, and what follows from them
                count = len(part) - 21
                part[21:] = random.choice([0x0F, 0xFF, 0xF0, 0x00, 0x1F, 0x0A, 0x01, int(random.integers(256))], count).tolist()
            elif random.integers(2):  # codes of other lengths, as many as before
                part[5:21] = random.multinomial(len(part) - 21, random.dirichlet(np.full(16, 0.5))).clip(0, 255).tolist()
        elif marker == headers.DQT:
            part[5:] = random.choice([0, 1, 255, int(random.integers(256))], len(part) - 5).tolist()
        parts[i] = bytes(part)
    if random.integers(2):
        noise = bytearray(random.bytes(len(scan)))
        scan = bytes(noise[:-2]).replace(b"\xff", b"\xff\0") + b"\xff\xd9" if random.integers(2) else bytes(len(scan)) + b"\xff\xd9"
    return b"\xff\xd8" + b"".join(parts) + scan


def shape_of(pixels):
    assert pixels.dtype == np.uint8
    return pixels.shape


def render(engine, data, random):
    out = np.empty((16, 16, 3), np.uint8)
    flip, antialias = bool(random.integers(2)), bool(random.integers(2))

    def view_of(height, width):
        y, x = int(random.integers(height)), int(random.integers(width))
        return View(height, width, 16, y, x, int(random.integers(1, height - y + 1)), int(random.integers(1, width - x + 1)), flip)

    decode.render(data, view_of, engine, antialias, out, MOST)


def whole(data, random):
    """By numba, whatever size the header claims."""
    header = headers.read(data)
    if not crop.supported(header):
        raise ValueError("not supported")
    assert shape_of(crop.decode_crop(data, header, 0, 0, header.height, header.width)) == (header.height, header.width, 3)


def marked(data, random):
    header, again = headers.read(data), headers.read(restart.add_markers(data))
    assert (header.height, header.width) == (again.height, again.width)


WAYS = {
    "numba": functools.partial(render, decode.engine("numba")),
    "opencv": functools.partial(render, decode.engine("opencv")),
    "whole": whole,
    "marked": marked,
}


def main(seed, count, *files):
    crop._bytes = guarded
    images = [pathlib.Path(file).read_bytes() for file in files]
    whole(images[0], None)  # all compiled before memory is limited
    marked(images[0], None)
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20), -1))
    ends = collections.Counter()
    for i in range(int(count)):
        random = np.random.default_rng([int(seed), i])
        data = images[i % len(images)]
        for _ in range(random.integers(1, 3)):
            try:
                data = [flip, lose, reorder, lie, lie][random.integers(5)](random, data)
            except (ValueError, IndexError, struct.error):  # so broken already that it has no parts
                break
        for name, one in WAYS.items():
            try:
                one(data, random)
                ends[name] += 1
            except ValueError:
                ends[name + " failed"] += 1
            except BaseException:
                print(f"seed {seed}, image {i}, {name}: {data.hex()}")
                raise
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
