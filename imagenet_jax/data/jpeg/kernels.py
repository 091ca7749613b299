"""Entropy decoding compiled by numba: only the crop's blocks are made into pixels, all others are passed over at twice the speed.

Huffman codes and the values behind them are short (5.5 bits together in ImageNet), so one look into a table of 2^BITS entries gives
up to two coefficients at once. The bytes are hostile: the stream is followed by PADDING zeros, more than one MCU can take, and its
end is checked after every MCU; positions within a block are checked before anything is stored.
"""

# pyright: reportArgumentType=false

import numpy as np
from numba import njit

from imagenet_jax.data.jpeg.machine import bits_at, byte_at, copy_eight, float_at, idct, put_float, word_at

BITS = 11
PADDING = 4096  # bytes; an MCU takes at most 10 blocks x 64 coefficients x 31 bits = 2,480

# An entry of a table says what the next BITS bits are; 0: a code that is longer.
#   DC    0-7 length of the code, 16-23 size of the value behind it
#   AC    0-4 bits taken by one or two symbols with their values, 8-15 coefficients passed, and for each of two values: 16, 24 its
#         place from here, 32, 48 where its bits begin, 40, 56 how many they are
_KNOWN = np.uint64(1 << 5)
_LAST = np.uint64(1 << 6)  # the block ends there
_END, _NONE = 64, 128  # in the place of a run

_U = np.uint64
_SHIFT = np.uint64(64 - BITS)

_ZIGZAG = np.array(
    [
        0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
        35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    ],
    np.uint64,
)  # fmt: skip


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
def tables(counts, symbols, used, fast, limits, offsets):
    """Fill the look-up tables of the Huffman tables `used`: 0-3 are DC, 4-7 AC. Returns whether all are valid."""
    single = np.zeros(1 << BITS, np.uint16)  # length << 8 | symbol of the code that these bits begin with
    for t in range(8):
        if not used[t]:
            continue
        single[:] = 0
        code = place = 0
        for length in range(1, 17):
            offsets[t, length] = place - code
            for _ in range(counts[t, length - 1]):
                symbol = symbols[t, place]
                if t < 4 and symbol > 11:
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
        if found == 0 or taken + length > BITS:
            break
        entry |= _KNOWN
        taken += length
        if size == 0 and run != 15:  # end of block
            entry |= _LAST
            break
        entry |= _U(passed + run) << _U(16 + 8 * values) | (_U(taken) | _U(size) << _U(8)) << _U(32 + 16 * values)
        taken += size
        passed += run + 1
        values += 1
    if values == 1:  # a second value of no bits, zero, at the next place: it changes nothing
        entry |= _U(passed) << _U(24)
    return entry | _U(taken) | _U(passed) << _U(8)


@njit(forceinline=True, nogil=True, error_model="numpy")
def _refill(stream, bits, have, at):
    """Bring the window to at least 56 bits without a branch; what it loads is needed only two codes later (Giesen 2018, variant 4)."""
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
        if entry & _KNOWN and k + passed < _U(64):
            taken = entry & _U(31)
            bits, have, k = bits << taken, have - taken, k + passed
            if entry & _LAST:
                return bits, have, at, True
            entry = word_at(codes[0], base + (bits >> _SHIFT))  # 27 bits at the most are gone: enough are left for a second look
            passed = (entry >> _U(8)) & _U(255)
            if entry & _KNOWN and k + passed < _U(64):
                taken = entry & _U(31)
                bits, have, k = bits << taken, have - taken, k + passed
                if entry & _LAST:
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
        if entry & _KNOWN and k + passed < _U(64):
            _put(bits, entry, k, store, factors)
            taken = entry & _U(31)
            bits, have, k = bits << taken, have - taken, k + passed
            if entry & _LAST:
                return bits, have, at, np.int64(k) - 1
            entry = word_at(codes[0], base + (bits >> _SHIFT))
            passed = (entry >> _U(8)) & _U(255)
            if entry & _KNOWN and k + passed < _U(64):
                _put(bits, entry, k, store, factors)
                taken = entry & _U(31)
                bits, have, k = bits << taken, have - taken, k + passed
                if entry & _LAST:
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
def decode(stream, count, starts, segments, interval, rows, columns, region, blocks, quant, fast, limits, offsets, symbols, planes):
    """Decode the MCUs of region = (top, bottom, left, right) into `planes`; returns whether the data are valid.

    `blocks` has a row for each block of an MCU: component, DC table, AC table, its y and x in the MCU, and of its component: pixels
    of an MCU down and across, where its plane begins in `planes`, and pixels in a row of that. `interval` counts MCUs.
    """
    top, bottom, left, right = region
    block, previous, order = np.zeros(64, np.float32), np.zeros(4, np.int64), _ZIGZAG.copy()
    codes = (fast.ctypes.data, limits.ctypes.data, offsets.ctypes.data, symbols.ctypes.data)
    store = (order.ctypes.data, quant.ctypes.data, block.ctypes.data)
    source, pixels = stream.ctypes.data, planes.ctypes.data
    for segment in range(segments):
        first, last = segment * interval, min((segment + 1) * interval, rows * columns)
        if not _needed(first, last, columns, region):
            continue
        bits, have, at = _U(0), _U(0), _U(starts[segment])
        limit = starts[segment + 1] if segment + 1 < segments else count
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
                idct(store[2], pixels, blocks[b, 7] + y * blocks[b, 8] + x, blocks[b, 8])
            column += 1
            if column == columns:
                row, column = row + 1, 0
            if np.int64(at) - np.int64(have >> _U(3)) > limit:
                return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def coefficients(stream, count, starts, segments, interval, mcus, blocks, fast, limits, offsets, symbols, out):
    """All coefficients in zigzag order, DC absolute: int16 out[block of the scan, 64], of zeros. Returns whether the data are valid."""
    block, previous = np.zeros(64, np.float32), np.zeros(4, np.int64)
    order, ones = np.arange(64).astype(np.uint64), np.ones(64, np.float32)
    codes = (fast.ctypes.data, limits.ctypes.data, offsets.ctypes.data, symbols.ctypes.data)
    store = (order.ctypes.data, ones.ctypes.data, block.ctypes.data)
    source = stream.ctypes.data
    place = 0
    for segment in range(segments):
        bits, have, at = _U(0), _U(0), _U(starts[segment])
        limit = starts[segment + 1] if segment + 1 < segments else count
        previous[:] = 0
        for _ in range(segment * interval, min((segment + 1) * interval, mcus)):
            for b in range(blocks.shape[0]):
                bits, have, at, difference, valid = _dc(source, bits, have, at, blocks[b, 1], codes)
                bits, have, at, last = _read(source, bits, have, at, blocks[b, 2], codes, store, 0)
                if not valid or last < 0:
                    return False
                previous[blocks[b, 0]] += difference
                block[0] = np.float32(previous[blocks[b, 0]])
                for k in range(last + 1):
                    out[place, k] = np.int16(block[k])
                    block[k] = 0
                place += 1
            if np.int64(at) - np.int64(have >> _U(3)) > limit:
                return False
    return True


@njit(cache=True, nogil=True)
def _size(value):
    """Bits of a value's magnitude."""
    size, rest = 0, abs(np.int64(value))
    while rest:
        size += 1
        rest >>= 1
    return size


@njit(cache=True, nogil=True)
def count_symbols(coefficients, blocks, interval):
    """How often each symbol stands in each Huffman table, int64 (8, 256), with DC values absolute again every `interval` MCUs."""
    counts = np.zeros((8, 256), np.int64)
    previous = np.zeros(4, np.int64)
    for place in range(coefficients.shape[0]):
        b = place % blocks.shape[0]
        if place % (blocks.shape[0] * interval) == 0:
            previous[:] = 0
        dc, ac = counts[blocks[b, 1]], counts[blocks[b, 2]]
        dc[_size(coefficients[place, 0] - previous[blocks[b, 0]])] += 1
        previous[blocks[b, 0]] = coefficients[place, 0]
        run = 0
        for k in range(1, 64):
            if coefficients[place, k] == 0:
                run += 1
                continue
            while run > 15:
                ac[0xF0] += 1
                run -= 16
            ac[run << 4 | _size(coefficients[place, k])] += 1
            run = 0
        if run:
            ac[0] += 1
    return counts


@njit(forceinline=True, nogil=True)
def _emit(out, at, bits, have, word, length):
    """Append `length` bits of `word`; whole bytes go out, with a zero behind 0xFF. Returns (at, bits, have)."""
    bits = bits << length | word
    have += length
    while have >= 8:
        byte = (bits >> (have - 8)) & 255
        out[at] = byte
        at += 1
        if byte == 255:
            out[at] = 0
            at += 1
        have -= 8
    return at, bits & ((1 << have) - 1), have


@njit(forceinline=True, nogil=True)
def _emit_value(out, at, bits, have, value, size):
    return _emit(out, at, bits, have, value if value >= 0 else value + (1 << size) - 1, size)


@njit(cache=True, nogil=True)
def encode(coefficients, blocks, interval, words, lengths, out, sizes):
    """Write all blocks with these codes, a restart marker every `interval` MCUs and the end mark; returns the bytes written.

    sizes[i] becomes the number of bytes of segment i with the marker behind it.
    """
    previous = np.zeros(4, np.int64)
    at = bits = have = began = segment = 0
    for place in range(coefficients.shape[0]):
        b = place % blocks.shape[0]
        if place and place % (blocks.shape[0] * interval) == 0:
            at, bits, have = _emit(out, at, bits, have, (1 << (-have % 8)) - 1, -have % 8)  # filled up with ones
            out[at], out[at + 1] = 0xFF, 0xD0 + segment % 8
            at += 2
            sizes[segment] = at - began
            began, segment = at, segment + 1
            previous[:] = 0
        component, dc, ac = blocks[b]
        difference = coefficients[place, 0] - previous[component]
        previous[component] = coefficients[place, 0]
        size = _size(difference)
        at, bits, have = _emit(out, at, bits, have, words[dc, size], lengths[dc, size])
        at, bits, have = _emit_value(out, at, bits, have, difference, size)
        run = 0
        for k in range(1, 64):
            value = np.int64(coefficients[place, k])
            if value == 0:
                run += 1
                continue
            while run > 15:
                at, bits, have = _emit(out, at, bits, have, words[ac, 0xF0], lengths[ac, 0xF0])
                run -= 16
            size = _size(value)
            at, bits, have = _emit(out, at, bits, have, words[ac, run << 4 | size], lengths[ac, run << 4 | size])
            at, bits, have = _emit_value(out, at, bits, have, value, size)
            run = 0
        if run:
            at, bits, have = _emit(out, at, bits, have, words[ac, 0], lengths[ac, 0])
    at, bits, have = _emit(out, at, bits, have, (1 << (-have % 8)) - 1, -have % 8)
    out[at], out[at + 1] = 0xFF, 0xD9
    sizes[segment] = at + 2 - began
    return at + 2
