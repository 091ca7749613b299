"""From the host's uint8 pixels to what a model takes, on the device: on the host it costs almost half a decode."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float], dtype: Any) -> jax.Array:
    """(images / 255 - mean) / std for images (n, h, w, 3) in 0 .. 255, uint8 or mixed; `mean` and `std` a channel, of 0 .. 1.

    Computed in float32 or wider and cast once to `dtype`.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    shape = (1, 1, 1, len(mean))
    scale = jnp.asarray([1 / (255 * s) for s in std], wide).reshape(shape)
    offset = jnp.asarray([-m / s for m, s in zip(mean, std, strict=True)], wide).reshape(shape)
    return (images.astype(wide) * scale + offset).astype(dtype)
