"""What a leaf of a state is known again by: a number of its bits, the same on every mesh, computed where the leaf lies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def examine(state: Any) -> tuple[list[bool], list[int]]:
    """For each leaf, whether it is finite, and its digest.

    Compiled once a shape, not as one program: 429 leaves of ResNet-50's state have 29 shapes.
    """
    found = jax.device_get([_look(leaf) for leaf in jax.tree.leaves(state)])
    return [bool(finite) for finite, _ in found], [int(digest) for _, digest in found]


@jax.jit
def _look(leaf: jax.Array) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(leaf)).astype(jnp.uint32), of_leaf(leaf)])


def of_leaf(leaf: jax.Array) -> jax.Array:
    """The sum, modulo 2^32, of hashes of the leaf's words and their places.

    Each hash is a bijection of its word, so a change within one word is always seen, others but for one in 2^32, as with a CRC. A
    sum of integers does not depend on its order: the digest is the same however the leaf is split over devices and processes, each
    of which reads only its own part, at the speed of its memory. It guards against faults, not against forgers.
    """
    size = min(leaf.dtype.itemsize, 4)
    bits = leaf.astype(jnp.uint8) if leaf.dtype == bool else jax.lax.bitcast_convert_type(leaf, f"uint{8 * size}")
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, length in enumerate(bits.shape):  # not through a flat view, which would gather a leaf that is split
        place = place * np.uint32(length & 0xFFFFFFFF) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return jnp.sum(_mix(bits.astype(jnp.uint32) ^ _mix(place)), dtype=jnp.uint32)


def _mix(x: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3 (Appleby 2011), a bijection of 32 bits that spreads each of them over all."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
