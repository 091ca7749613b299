"""Writing coefficients as entropy-coded data with restart markers, for restart.py."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false

import numpy as np
from numba import njit


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
