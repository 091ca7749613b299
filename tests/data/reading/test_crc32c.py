import numpy as np
import pytest

from imagenet_jax.data.reading.crc32c import crc32c, crc32c_of_words, masked


def by_bits(data):
    """The definition, a bit at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, B.4, and the check value of the CRC catalogue
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_values(data, expected):
    assert crc32c(data) == expected == by_bits(data)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 4091, 4092, 4093, 4096, 9000])
def test_any_size_is_the_definition(size):
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == crc32c(memoryview(data)) == by_bits(data)


def test_one_bit_anywhere_changes_it():
    data = bytearray(np.random.default_rng(0).bytes(100_000))
    whole = crc32c(data)
    for at in (0, 1, 4095, 50_000, 99_999):
        data[at] ^= 16
        assert crc32c(data) != whole
        data[at] ^= 16
    assert crc32c(data) == whole


def test_many_short_pieces_at_once():
    words = np.random.default_rng(0).integers(0, 2**32, (2, 50), np.uint32)
    assert crc32c_of_words(words).tolist() == [by_bits(piece.tobytes()) for piece in words.T.astype("<u4")]


def test_masking_is_tensorflows():
    # From the description in TensorFlow's record format: rotated right by 15 bits, plus 0xa282ead8.
    crc = by_bits(bytes(8))
    assert masked(np.array([crc], np.uint32))[0] == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
