"""CRC32C (Castagnoli, RFC 3720 appendix B.4), which guards TFRecords, in numpy: 290 MB/s (110 KB a record, one core, AMD EPYC).

A CRC is linear over GF(2). Long data becomes a matrix of words whose rows all go through the tables at once; then the remainders
of the rows are joined two by two, the left one multiplied by x to the power of the bits on its right.
"""

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # reflected: the highest power is the lowest bit
_ONE = 1 << 31
_START = 0xFFFFFFFF
_PREFIX = b"\x54\x64\x1f\x64"  # takes a register of 0 to all ones, the start that the standard asks for
_ROWS = 1024


def crc32c(data: bytes | memoryview) -> int:
    """The CRC32C of `data`, 32 bits."""
    length = -(-(len(data) + 4) // (4 * _ROWS))  # words a row
    padded = np.zeros(4 * _ROWS * length, np.uint8)  # zeros in front change nothing while the register is 0
    padded[len(padded) - len(data) - 4 :] = np.frombuffer(b"".join((_PREFIX, data)), np.uint8)
    state = _remainders(padded.view("<u4").reshape(_ROWS, length).T.copy(), 0)  # copied: each step takes one contiguous line
    bits = 32 * length
    while len(state) > 1:
        state = _apply(_shift(bits, 8), state[::2]) ^ state[1::2]
        bits *= 2
    return int(state[0]) ^ 0xFFFFFFFF


def crc32c_of_words(words: np.ndarray) -> np.ndarray:
    """CRC32C of each of n short pieces of k words: uint32 (k, n), little-endian -> uint32 (n,)."""
    return _remainders(words, _START) ^ np.uint32(0xFFFFFFFF)


def masked(crc: np.ndarray) -> np.ndarray:
    """uint32 CRCs as TFRecord stores them: rotated right by 15 bits, plus a constant (tensorflow/core/lib/hash/crc32c.h)."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def _remainders(words: np.ndarray, start: int) -> np.ndarray:
    state = np.full(words.shape[1], start, np.uint32)
    tables = _shift(32, 16)
    for line in words:
        state = _apply(tables, state ^ line)
    return state


def _apply(tables: list[np.ndarray], state: np.ndarray) -> np.ndarray:
    """A linear map of 32 bits, from its tables of 8 or of 16 of them."""
    width = 32 // len(tables)
    mask = np.uint32((1 << width) - 1)
    out = tables[0][state & mask]
    for i, table in enumerate(tables[1:-1], 1):
        out ^= table[(state >> np.uint32(width * i)) & mask]
    return out ^ tables[-1][state >> np.uint32(32 - width)]


@functools.lru_cache(maxsize=2048)  # 4 KB each, one or two for each size of record in blocks of 4 KB
def _shift(bits: int, width: int) -> list[np.ndarray]:
    """Tables, one for each `width` bits of the argument, of the multiplication by x**bits."""
    factor = _power(bits)
    tables = []
    for first in range(0, 32, width):
        table = np.zeros(1 << width, np.uint32)
        for bit in range(width):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ np.uint32(_times(1 << first + bit, factor))
        tables.append(table)
    return tables


def _power(exponent: int) -> int:
    """x**exponent modulo the polynomial."""
    result, square = _ONE, _ONE >> 1
    while exponent:
        if exponent & 1:
            result = _times(result, square)
        square, exponent = _times(square, square), exponent >> 1
    return result


def _times(a: int, b: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product
