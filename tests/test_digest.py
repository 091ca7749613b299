"""The digest of a leaf sees every change, and no mesh."""

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax import digest as digests


def test_a_digest_sees_every_bit_place_and_type():
    """And is the same however a leaf is split; a plain sum would miss two signs that flip."""
    rng = np.random.default_rng(0)
    for dtype in ("float32", "bfloat16", "int32", "bool", "uint8"):
        x = rng.integers(0, 2 if dtype == "bool" else 100, (8, 6)).astype(jnp.dtype(dtype))
        seen = {digest(x)}
        for bit in range(8 * x.dtype.itemsize if dtype != "bool" else 0):
            y = x.copy()
            y.view(f"uint{8 * x.dtype.itemsize}")[3, 2] ^= np.asarray(1 << bit, f"uint{8 * x.dtype.itemsize}")
            seen.add(digest(y))
        seen |= {digest(x[::-1]), digest(x.T), digest(x[:, ::-1])}
        assert len(seen) == 4 + (8 * x.dtype.itemsize if dtype != "bool" else 0)
    x = rng.normal(size=(8, 6)).astype(np.float32)
    assert digest(-x) != digest(x)
    split = jax.device_put(x, jax.sharding.NamedSharding(jax.make_mesh((4, 2), ("a", "b")), jax.sharding.PartitionSpec("a", "b")))
    assert digest(split) == digest(x)


def digest(leaf) -> int:
    return int(jax.jit(digests.of_leaf)(leaf))
