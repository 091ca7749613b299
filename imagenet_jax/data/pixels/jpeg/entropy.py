"""Entropy decoding: only the blocks of a crop are made into pixels, all others are passed over at twice the speed.

The bytes are hostile: the end of the stream is checked after every MCU, and places within a block before anything is stored. What
is called here works on addresses (machine.py), so a mistake would be a crash: the tests damage bytes at random.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false

import numpy as np
from numba import njit

from imagenet_jax.data.pixels.jpeg.codes import BITS, KNOWN, LAST
from imagenet_jax.data.pixels.jpeg.machine import bits_at, byte_at, float_at, idct, put_float, word_at

_END, _NONE = 64, 128  # in the place of a run: the block ends, and no code
_U = np.uint64
_SHIFT = np.uint64(64 - BITS)

_ZIGZAG = np.array(
    [
        0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
        12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
        35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
        58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    ],
    np.uint64,
)  # fmt: skip


@njit(forceinline=True, nogil=True, error_model="numpy")
def _refill(stream, bits, have, at):
    """Bring the window to 56 bits or more without a branch; what it loads is not needed at once (Giesen 2018, variant 4)."""
    bits |= bits_at(stream, at) >> have
    at += (_U(63) - have) >> _U(3)
    return bits, have | _U(56), at


@njit(forceinline=True, nogil=True, error_model="numpy")
def _code(bits, t, codes):
    """Length and symbol of the code that `bits` begin with, whatever its length; length 0 where it is none."""
    _, limits, offsets, symbols = codes
    top = bits >> _U(48)
    length = 1
    while length <= 16 and top >= word_at(limits, 17 * t + length):
        length += 1
    if length > 16:
        return 0, 0
    place = np.int64(top >> _U(16 - length)) + np.int64(word_at(offsets, 17 * t + length))
    return length, np.int64(byte_at(symbols, 256 * t + place))


@njit(forceinline=True, nogil=True, error_model="numpy")
def _value(bits, begin, size):
    """The value of `size` bits, `begin` bits into the window (T.81, figure F.12)."""
    value = np.int64((bits << begin) >> (_U(63) - size)) >> 1
    return value - (((1 << size) - 1) if value << 1 < 1 << size else 0)


@njit(forceinline=True, nogil=True, error_model="numpy")
def _dc(stream, bits, have, at, t, codes):
    """Take a DC difference: the window behind it, the difference, and whether its code is valid."""
    bits, have, at = _refill(stream, bits, have, at)
    entry = word_at(codes[0], _U(t << BITS) + (bits >> _SHIFT))
    if entry:
        length, size = entry & _U(255), entry >> _U(16)
    else:
        found, symbol = _code(bits, t, codes)
        length, size = _U(found), _U(symbol)
    return bits << (length + size), have - length - size, at, _value(bits, length, size), length > 0


@njit(forceinline=True, nogil=True, error_model="numpy")
def _ac_one(bits, t, codes):
    """The one symbol that `bits` begin with: (bits taken, run, value); run _END ends the block, _NONE is no code."""
    length, symbol = _code(bits, t, codes)
    run, size = symbol >> 4, symbol & 15
    if length == 0:
        run = _NONE
    elif size == 0 and run != 15:
        run = _END
    return _U(length + size), run, _value(bits, _U(length), _U(size))


@njit(forceinline=True, nogil=True, error_model="numpy")
def _skip(stream, bits, have, at, t, codes):
    """Pass over the AC coefficients of a block: the window behind them, and whether they are valid."""
    k = _U(1)
    base = _U(t << BITS)
    while True:
        bits, have, at = _refill(stream, bits, have, at)
        entry = word_at(codes[0], base + (bits >> _SHIFT))
        passed = (entry >> _U(8)) & _U(255)
        if entry & KNOWN and k + passed < _U(64):
            taken = entry & _U(31)
            bits, have, k = bits << taken, have - taken, k + passed
            if entry & LAST:
                return bits, have, at, True
            entry = word_at(codes[0], base + (bits >> _SHIFT))  # 25 bits at the most are gone (codes.MOST)
            passed = (entry >> _U(8)) & _U(255)
            if entry & KNOWN and k + passed < _U(64):
                taken = entry & _U(31)
                bits, have, k = bits << taken, have - taken, k + passed
                if entry & LAST:
                    return bits, have, at, True
                continue
        taken, run, _ = _ac_one(bits, t, codes)
        bits, have, k = bits << taken, have - taken, k + _U(run + 1)
        if k >= _U(64):
            return bits, have, at, k == _U(64) or run == _END
    return bits, have, at, False


@njit(forceinline=True, nogil=True, error_model="numpy")
def _put(bits, entry, k, store, component):
    """Store the two values of an entry."""
    order, quant, block = store
    first, second = k + ((entry >> _U(16)) & _U(255)), k + ((entry >> _U(24)) & _U(255))
    one = _value(bits, (entry >> _U(32)) & _U(255), (entry >> _U(40)) & _U(255))
    two = _value(bits, (entry >> _U(48)) & _U(255), entry >> _U(56))
    put_float(block, word_at(order, first), np.float32(one) * float_at(quant, component + first))
    put_float(block, word_at(order, second), np.float32(two) * float_at(quant, component + second))


@njit(forceinline=True, nogil=True, error_model="numpy")
def _read(stream, bits, have, at, t, codes, store, component):
    """Read the AC coefficients of a block: the window behind them, and the place of the last one, -1 where they are not valid.

    `store`: where the place of coefficient k is found, the factors of the components, and the block.
    """
    k = _U(1)
    base, factors = _U(t << BITS), _U(component << 6)
    while True:
        bits, have, at = _refill(stream, bits, have, at)
        entry = word_at(codes[0], base + (bits >> _SHIFT))
        passed = (entry >> _U(8)) & _U(255)
        if entry & KNOWN and k + passed < _U(64):
            _put(bits, entry, k, store, factors)
            taken = entry & _U(31)
            bits, have, k = bits << taken, have - taken, k + passed
            if entry & LAST:
                return bits, have, at, np.int64(k) - 1
            entry = word_at(codes[0], base + (bits >> _SHIFT))
            passed = (entry >> _U(8)) & _U(255)
            if entry & KNOWN and k + passed < _U(64):
                _put(bits, entry, k, store, factors)
                taken = entry & _U(31)
                bits, have, k = bits << taken, have - taken, k + passed
                if entry & LAST:
                    return bits, have, at, np.int64(k) - 1
                continue
        taken, run, value = _ac_one(bits, t, codes)
        bits, have = bits << taken, have - taken
        if run == _END:
            return bits, have, at, np.int64(k) - 1
        k += _U(run)
        if k > _U(63):
            return bits, have, at, -1
        put_float(store[2], word_at(store[0], k), np.float32(value) * float_at(store[1], factors + k))
        k += _U(1)
        if k == _U(64):
            return bits, have, at, 63
    return bits, have, at, -1


@njit(forceinline=True, nogil=True, error_model="numpy")
def _needed(first, last, columns, region):
    """Whether any of the MCUs first .. last - 1 lies in region = (top, bottom, left, right), in MCUs."""
    top, bottom, left, right = region
    if last <= top * columns + left or first >= (bottom - 1) * columns + right:
        return False
    row = first // columns
    if row != (last - 1) // columns:
        return True
    return first - row * columns < right and last - 1 - row * columns >= left


@njit(cache=True, nogil=True, error_model="numpy")
def decode(scan, rows, columns, region, blocks, quant, places, planes):
    """Decode the MCUs of region = (top, bottom, left, right) into `planes`; returns whether the data are valid.

    `blocks` has a row for each block of an MCU: component, DC table, AC table, its y and x in the MCU, and how many pixels of its
    component an MCU has down and across. `places` has a row for each component: where its plane begins, and pixels in a row of it.
    """
    top, bottom, left, right = region
    block, previous, order = np.zeros(64, np.float32), np.zeros(4, np.int64), _ZIGZAG.copy()
    codes = (scan.fast.ctypes.data, scan.limits.ctypes.data, scan.offsets.ctypes.data, scan.symbols.ctypes.data)
    store = (order.ctypes.data, quant.ctypes.data, block.ctypes.data)
    source, pixels = scan.stream.ctypes.data, planes.ctypes.data
    for segment in range(scan.segments):
        first, last = segment * scan.interval, min((segment + 1) * scan.interval, rows * columns)
        if not _needed(first, last, columns, region):
            continue
        bits, have, at = _U(0), _U(0), _U(scan.starts[segment])
        limit = scan.starts[segment + 1] if segment + 1 < scan.segments else scan.count
        previous[:] = 0
        row = first // columns
        column = first - row * columns
        for _ in range(first, min(last, (bottom - 1) * columns + right)):
            inside = top <= row < bottom and left <= column < right
            for b in range(blocks.shape[0]):
                component, ac = blocks[b, 0], blocks[b, 2]
                bits, have, at, difference, valid = _dc(source, bits, have, at, blocks[b, 1], codes)
                previous[component] += difference
                if not inside:
                    bits, have, at, well = _skip(source, bits, have, at, ac, codes)
                    if not (valid and well):
                        return False
                    continue
                bits, have, at, last_place = _read(source, bits, have, at, ac, codes, store, component)
                if not valid or last_place < 0:
                    return False
                block[0] = np.float32(previous[component]) * quant[component, 0]
                y, x = (row - top) * blocks[b, 5] + blocks[b, 3], (column - left) * blocks[b, 6] + blocks[b, 4]
                idct(store[2], pixels, places[component, 0] + y * places[component, 1] + x, places[component, 1])
            column += 1
            if column == columns:
                row, column = row + 1, 0
            if np.int64(at) - np.int64(have >> _U(3)) > limit:
                return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def coefficients(scan, mcus, blocks, out):
    """All coefficients in zigzag order, DC absolute, into `out`, int16 (blocks, 64) of zeros; returns whether all are valid."""
    block, previous = np.zeros(64, np.float32), np.zeros(4, np.int64)
    order, ones = np.arange(64).astype(np.uint64), np.ones(64, np.float32)
    codes = (scan.fast.ctypes.data, scan.limits.ctypes.data, scan.offsets.ctypes.data, scan.symbols.ctypes.data)
    store = (order.ctypes.data, ones.ctypes.data, block.ctypes.data)
    source = scan.stream.ctypes.data
    place = 0
    for segment in range(scan.segments):
        bits, have, at = _U(0), _U(0), _U(scan.starts[segment])
        limit = scan.starts[segment + 1] if segment + 1 < scan.segments else scan.count
        previous[:] = 0
        for _ in range(segment * scan.interval, min((segment + 1) * scan.interval, mcus)):
            for b in range(blocks.shape[0]):
                bits, have, at, difference, valid = _dc(source, bits, have, at, blocks[b, 1], codes)
                bits, have, at, last = _read(source, bits, have, at, blocks[b, 2], codes, store, 0)
                if not valid or last < 0:
                    return False
                previous[blocks[b, 0]] += difference
                if abs(previous[blocks[b, 0]]) >= 1 << 14:  # 8 bits have 1 << 10; differences beyond 15 bits have no code
                    return False
                block[0] = np.float32(previous[blocks[b, 0]])
                for k in range(last + 1):
                    out[place, k] = np.int16(block[k])
                    block[k] = 0
                place += 1
            if np.int64(at) - np.int64(have >> _U(3)) > limit:
                return False
    return True
