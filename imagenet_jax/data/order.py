"""Which example stands at which position of a run, and the random numbers of its view: pure functions, no state.

A run's examples are one endless row. Position p belongs to epoch p // n and holds example permutation(seed, epoch)[p % n], so
that batches may straddle epochs, nothing is dropped, and any step can be computed without those before it. Seeds, epochs and
example ids are hashed together, never added: with seed + epoch, (seed 0, epoch 1) would repeat (seed 1, epoch 0).
"""

import math

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = 8


def hash64(*parts: int) -> int:
    """Mix integers into 64 well-spread bits; the order of the parts matters (splitmix64, Steele et al. 2014)."""
    state = 0
    for part in parts:
        state = _mix((state ^ (part & _MASK)) + _GOLDEN & _MASK)
    return state


def hash64_each(*parts: int | np.ndarray) -> np.ndarray:
    """`hash64` of many keys at once, uint64: of the parts' elements, numbers standing for all. 0.1 us a key instead of 3."""
    state = np.zeros(np.broadcast_shapes(*map(np.shape, parts)), np.uint64)
    for part in parts:
        state = _mix_each((state ^ np.asarray(part).astype(np.uint64)) + np.uint64(_GOLDEN))
    return state


def _mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


class Draws:
    """Random numbers of one view of one image: a splitmix64 stream that starts at `hash64(*key)`.

    Ours rather than numpy's, whose streams may change with its version, and at half the cost of making a numpy Generator.
    """

    def __init__(self, *key: int):
        self._state, self.phase = hash64(*key), 0

    @classmethod
    def at(cls, state: int, phase: int = 0) -> "Draws":
        """The stream that starts at `state`, an element of `hash64_each`; `phase` is one of `phases`."""
        draws = cls.__new__(cls)
        draws._state, draws.phase = state, phase
        return draws

    def bits(self) -> int:
        """64 random bits."""
        self._state = z = (self._state + _GOLDEN) & _MASK
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK  # `_mix`, written out: a third of the time is the call
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
        return z ^ (z >> 31)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float in [0, 1), stretched to low .. high (where rounding may reach `high` itself)."""
        return low + (high - low) * (self.bits() >> 11) * 2.0**-53

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + (self.bits() * (high - low + 1) >> 64)

    def normal(self) -> float:
        """A standard normal number (Box and Muller 1958)."""
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        return radius * math.cos(2 * math.pi * self.uniform())

    def permutation(self, count: int) -> list[int]:
        """0 .. count - 1 in random order (Fisher and Yates)."""
        order = list(range(count))
        for last in range(count - 1, 0, -1):
            other = self.integer(0, last)
            order[last], order[other] = order[other], order[last]
        return order

    def bytes(self, count: int) -> np.ndarray:
        """`count` random bytes, uint8 (count,): of the next ceil(count / 8) `bits`, the low ones first."""
        words = -(-count // 8)
        state = np.uint64(self._state) + np.arange(1, words + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        self._state = (self._state + words * _GOLDEN) & _MASK
        return _mix_each(state).astype("<u8").view(np.uint8)[:count]


def examples(
    start: int, count: int, size: int, seed: int, repeats: int = 1, batch_size: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, example ids and view numbers, all int64 (count,), at positions start .. start + count - 1 of `size` examples.

    With `repeats`, each image of an epoch stands there that often in a row, as views 0 .. repeats - 1, and the epoch, whose length
    stays `size`, shows only the first size / repeats images of its order (repeated augmentation, Hoffer et al. 2020; DeiT's
    RASampler). Where positions are rows of batches of `batch_size`, these views are dealt out over the batch, batch_size // repeats
    rows apart: side by side they would share a device, and BN statistics of few images (RASampler gives each to another process).
    """
    batches, rows = np.divmod(np.arange(start, start + count, dtype=np.int64), batch_size)
    apart = max(1, batch_size // repeats)
    dealt = np.where(rows < apart * repeats, rows % apart * repeats + rows // apart, rows)
    positions = batches * batch_size + dealt
    epochs, within = np.divmod(positions, size)
    places, views = np.divmod(within, repeats)
    ids = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        ids[here] = permute(places[here], size, hash64(seed, int(epoch)))
    return epochs, ids, views


def phases(seed: int, epochs: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """0 or 1 for each example, uint64: random in its first epoch, and the other one in each next."""
    return (hash64_each(seed, ids, 1) + epochs.astype(np.uint64)) & np.uint64(1)


def permute(index: np.ndarray, size: int, key: int) -> np.ndarray:
    """The images of `index` (int64, each in 0 .. size - 1) under the permutation of 0 .. size - 1 that `key` chooses.

    A Feistel network over the smallest number of bits that holds `size`, walked again while the value falls outside (Black and
    Rogaway 2002, section 4): no table, whatever the size, about 1 us an index.
    """
    if size < 2:
        return np.zeros_like(index)
    bits = max(4, (size - 1).bit_length())  # with fewer, some orders of a tiny data set would come up clearly more often
    keys = [np.uint64(hash64(key, r)) for r in range(_ROUNDS)]
    out = _feistel(index.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(out >= np.uint64(size))
    while outside.size:
        out[outside] = again = _feistel(out[outside], bits, keys)
        outside = outside[again >= np.uint64(size)]
    return out.astype(np.int64)


def _feistel(x: np.ndarray, bits: int, keys: list[np.uint64]) -> np.ndarray:
    # Left and right are changed in turn and never swapped, so that they need not be equally wide: an odd number of bits serves.
    below = np.uint64(bits // 2)
    low, high = np.uint64((1 << bits // 2) - 1), np.uint64((1 << bits - bits // 2) - 1)
    left, right = x >> below, x & low
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left = left ^ (_spread(right, first) & high)
        right = right ^ (_spread(left, second) & low)
    return (left << below) | right


def _mix_each(z: np.ndarray) -> np.ndarray:
    return _spread(z, z >> np.uint64(30))


def _spread(x: np.ndarray, key: np.uint64 | np.ndarray) -> np.ndarray:
    z = (x ^ key) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
