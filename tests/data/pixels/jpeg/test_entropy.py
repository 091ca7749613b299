import struct

import numpy as np
import pytest

from imagenet_jax.data.pixels.jpeg import crop, restart
from imagenet_jax.data.pixels.jpeg import header as headers
from imagenet_jax.data.pixels.jpeg.codes import BITS


def canonical(lengths):
    """{symbol: bits as a string} and the DHT body of {symbol: length of its code} (T.81, C.2)."""
    order = sorted(lengths, key=lambda s: lengths[s])
    code, last, codes = 0, 0, {}
    for symbol in order:
        code <<= lengths[symbol] - last
        last = lengths[symbol]
        codes[symbol] = f"{code:0{last}b}"
        code += 1
    return codes, bytes(sum(n == i for n in lengths.values()) for i in range(1, 17)) + bytes(order)


def bits_of(value):
    """(size, bits) of a value (T.81, F.1.2.1)."""
    size = abs(value).bit_length()
    return size, f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def file_of(text, blocks, dc_lengths, ac_lengths):
    """A grey JPEG of one row of that many blocks, whose data are these bits."""
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    segments = [
        (headers.DQT, b"\0" + b"\1" * 64),
        (0xC0, struct.pack(">BHHB", 8, 8, 8 * blocks, 1) + b"\1\x11\0"),
        (headers.DHT, b"\0" + canonical(dc_lengths)[1]),
        (headers.DHT, b"\x10" + canonical(ac_lengths)[1]),
        (headers.SOS, b"\1\1\0\0\x3f\0"),
    ]
    head = b"".join(b"\xff" + bytes([m]) + struct.pack(">H", 2 + len(body)) + body for m, body in segments)
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


def grey(blocks, dc_lengths, ac_lengths):
    """The same of blocks (differences of DC, and AC in zigzag order), written plainly."""
    (dc, _), (ac, _) = canonical(dc_lengths), canonical(ac_lengths)
    bits = []
    for block in blocks:
        size, value = bits_of(int(block[0]))
        bits += [dc[size], value]
        run = 0
        last = max(np.flatnonzero(block[1:]), default=-1) + 1
        for k in range(1, last + 1):
            if block[k] == 0 and run < 15:
                run += 1
                continue
            size, value = bits_of(int(block[k]))
            bits += [ac[run << 4 | size], value]
            run = 0
        if last < 63:
            bits.append(ac[0])
    return file_of("".join(bits), len(blocks), dc_lengths, ac_lengths)


def coefficients(data):
    return restart.read_coefficients(data, headers.read(data))


def absolute(blocks):
    return np.concatenate([np.cumsum(blocks[:, :1], 0), blocks[:, 1:]], 1)


DC = dict(zip(range(12), [2, 3, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9], strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_any_code_and_any_value(seed):
    """Codes of 1 to 16 bits, values of up to 15, any number in a row that both fit into one look and do not."""
    random = np.random.default_rng(seed)
    largest = (3, 6, 10, 15)[seed % 4]
    sizes = random.integers(1, largest + 1, (40, 64))
    blocks = random.integers(1 << (sizes - 1), 1 << sizes) * random.choice([-1, 1], (40, 64))
    blocks[random.random((40, 64)) > random.random((40, 1))] = 0
    blocks[:, 0] = random.integers(-400, 401, 40)
    counts = np.zeros(256, int)
    counts[[run << 4 | size for run in range(16) for size in range(1, largest + 1)] + [0, 0xF0]] = 1
    counts[counts > 0] += (random.pareto(0.3, np.count_nonzero(counts)).clip(0, 1e6) * 100).astype(int)
    numbers, symbols = restart.optimal_code(counts)
    lengths = np.repeat(np.arange(1, 17), list(numbers))
    data = grey(blocks, DC, dict(zip(symbols, lengths.tolist(), strict=True)))
    np.testing.assert_array_equal(coefficients(data), absolute(blocks))
    check_crops(data, len(blocks))


def test_codes_and_values_that_use_up_the_window():
    """The longest code of a look and 15 bits, then 16 + 15: no more than the 56 of the window. Hostile, but well-formed."""
    random = np.random.default_rng(0)
    blocks = random.integers(1 << 14, 1 << 15, (60, 64)) * random.choice([-1, 1], (60, 64))
    blocks[:, 2::2] = 0  # run 1: 0x1F
    blocks[:, 63] = 1 << 14
    blocks[:, 0] = 0
    blocks[::2, 1:4] = 1 << 14
    for lengths in ({0x1F: BITS, 0x0F: 16, 0: 1}, {0x1F: 16, 0x0F: BITS, 0: 1}):
        data = grey(blocks, {0: 1}, lengths)
        np.testing.assert_array_equal(coefficients(data), blocks)
        check_crops(data, len(blocks))


def check_crops(data, blocks):
    """What is passed over ends where what is read ends."""
    header = headers.read(data)
    whole = crop.decode_crop(data, header, 0, 0, 8, header.width).copy()
    for i in range(0, blocks, 7):
        np.testing.assert_array_equal(crop.decode_crop(data, header, 0, 8 * i, 8, 8), whole[:, 8 * i : 8 * i + 8])


@pytest.mark.parametrize("shortest", [2, 8, 12])  # two symbols to a look, one, none
def test_a_block_ends_at_its_last_place(shortest):
    symbols = [0xF0, 0xE1, 0xF1, 0]
    lengths = dict.fromkeys(symbols, shortest)
    codes, _ = canonical(lengths)
    zeros, last, beyond, end = (codes[s] for s in symbols)
    full = file_of("0" + 3 * zeros + last + "1" + "0" + end, 2, {0: 1}, lengths)
    assert np.argwhere(coefficients(full)).tolist() == [[0, 63]]
    for wrong in (3 * zeros + beyond + "1", 4 * zeros, 5 * zeros, 4 * zeros + end):
        data = file_of("0" + wrong + "0" + end, 2, {0: 1}, lengths)
        header = headers.read(data)
        for x in (0, 8):  # read, and passed over
            with pytest.raises(ValueError, match="damaged"):
                crop.decode_crop(data, header, 0, x, 8, 8)
        with pytest.raises(ValueError, match="damaged"):
            coefficients(data)


@pytest.mark.parametrize("lengths", [{0: 1, 1: 1, 2: 1}, {0: 1, 1: 2, 2: 2, 3: 2}, dict.fromkeys(range(200), 7)])
def test_a_table_with_more_codes_than_there_are_bits_is_refused(lengths):
    with pytest.raises(ValueError, match="Huffman table is damaged"):
        coefficients(file_of("0" * 16, 2, {0: 1}, lengths))
