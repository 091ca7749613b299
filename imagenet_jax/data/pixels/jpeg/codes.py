"""Making a scan ready for decoding: markers and stuffed zeros removed, and Huffman codes made into look-up tables.

Codes and the values behind them are short (5.5 bits together in ImageNet), so one look into a table of 2^BITS entries gives up to
two coefficients at once. The bytes are hostile: the stream is followed by PADDING zeros, more than one MCU can take.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false

import numpy as np
from numba import njit

from imagenet_jax.data.pixels.jpeg.machine import copy_eight

BITS = 10  # 11 and 12 decode as fast; the tables of 10 are made in half the time, and stay in the nearest cache
MOST = 25  # bits that one look takes: of the 56 in the window 31 are left, enough for any code and its value
PADDING = 4096  # bytes; an MCU takes at most 10 blocks x 64 coefficients x 31 bits = 2,480

# An entry of a table says what the next BITS bits are; 0: a code that is longer.
#   DC    0-7 length of the code, 16-23 size of the value behind it
#   AC    0-4 bits taken by one or two symbols with their values, 8-15 coefficients passed, and for each of two values: 16, 24 its
#         place from here, 32, 48 where its bits begin, 40, 56 how many they are
KNOWN = np.uint64(1 << 5)
LAST = np.uint64(1 << 6)  # the block ends there

_U = np.uint64


@njit(cache=True, nogil=True)
def clean(data, start, out, starts):
    """Copy the entropy-coded data from data[start:] to `out` without stuffed zeros and markers; zeros follow.

    starts[i] becomes the place in `out` of restart segment i. Returns (bytes, segments); bytes < 0 where no end mark is found.
    """
    at, end, count, segments = start, data.shape[0], 0, 1
    source, target = data.ctypes.data, out.ctypes.data
    starts[0] = 0
    while at < end:
        while at + 8 <= end and copy_eight(source, at, target, count):
            at += 8
            count += 8
        stop = min(at + 8, end - 1)
        while at < stop:
            byte = data[at]
            at += 1
            if byte != 0xFF:
                out[count] = byte
                count += 1
                continue
            while data[at] == 0xFF and at < end - 1:  # fill bytes
                at += 1
            after = data[at]
            at += 1
            if after == 0:
                out[count] = 0xFF
                count += 1
            elif 0xD0 <= after <= 0xD7 and segments < starts.shape[0]:
                starts[segments] = count
                segments += 1
            else:
                out[count : count + PADDING] = 0
                return (count if after == 0xD9 else -1), segments
        if at >= end - 1:
            break
    return -1, segments


@njit(cache=True, nogil=True)
def tables(rows, fast, limits, offsets, symbols):
    """Fill the look-up tables of some Huffman tables; returns whether these are valid.

    A row holds a table's number (0-3 DC, 4-7 AC), how many codes it has of length 1 .. 16, and its symbols, 256 with what follows.
    """
    single = np.zeros(1 << BITS, np.uint16)  # length << 8 | symbol of the code that these bits begin with
    for r in range(rows.shape[0]):
        t = rows[r, 0]
        symbols[t] = rows[r, 17:]
        single[:] = 0
        code = place = 0
        for length in range(1, 17):
            offsets[t, length] = place - code
            for _ in range(rows[r, length]):
                symbol = symbols[t, place]
                if t < 4 and symbol > 15:  # 8 bits have 11 at most; libjpeg takes 15
                    return False
                if length <= BITS:
                    first = code << (BITS - length)
                    if first + (1 << (BITS - length)) > 1 << BITS:
                        return False
                    single[first : first + (1 << (BITS - length))] = length << 8 | symbol
                code += 1
                place += 1
            if code > 1 << length:
                return False
            limits[t, length] = code << (16 - length)
            code <<= 1
        for bits in range(1 << BITS):
            fast[t, bits] = _dc_entry(single[bits]) if t < 4 else _ac_entry(single, bits)
    return True


@njit(forceinline=True, nogil=True, error_model="numpy")
def _dc_entry(found):
    return _U(found >> 8) | _U(found & 255) << _U(16) if found else _U(0)


@njit(cache=True, nogil=True)
def _ac_entry(single, bits):
    taken, passed, values, entry = 0, 0, 0, _U(0)
    while values < 2 and taken < BITS:
        found = single[(bits << taken) & ((1 << BITS) - 1)]
        length, run, size = found >> 8, (found >> 4) & 15, found & 15
        if found == 0 or taken + length > BITS or taken + length + size > MOST:
            break
        entry |= KNOWN
        taken += length
        if size == 0 and run != 15:  # end of block
            entry |= LAST
            break
        entry |= _U(passed + run) << _U(16 + 8 * values) | (_U(taken) | _U(size) << _U(8)) << _U(32 + 16 * values)
        taken += size
        passed += run + 1
        values += 1
    if values == 1:  # a second value of no bits, zero, at the next place: it changes nothing
        entry |= _U(passed) << _U(24)
    return entry | _U(taken) | _U(passed) << _U(8)
