"""Top-k correctness with a stated rule for ties."""

import jax
import jax.numpy as jnp


def correct(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """bool (n,): whether the label is among the k classes with the largest logits, (n, classes).

    Ties go to the lower class index, as argmax does; so constant logits are right for one class in n, not for all. A row
    with a NaN is wrong.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    before = jnp.arange(logits.shape[-1])[None, :] < labels[:, None]
    rank = jnp.sum((logits > own) | ((logits == own) & before), axis=-1)
    return (rank < k) & jnp.all(~jnp.isnan(logits), axis=-1)
