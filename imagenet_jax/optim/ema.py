"""Exponential moving averages of whole trees."""

from typing import Any

import jax
import jax.numpy as jnp


def update(average: Any, tree: Any, decay: float, step: jax.Array, interval: int = 1) -> Any:
    """decay * average + (1 - decay) * tree at the end of every `interval`-th step, with the decay capped at (1 + n) / (10 + n).

    n counts the updates before this one; `step` the steps before this one.

    The cap (tf.train.ExponentialMovingAverage's `num_updates`) forgets the initial weights quickly: with 0.9999 alone they
    would still weigh 37 % after 10,000 steps.
    """
    before = step // interval
    now = jnp.minimum(decay, (1.0 + before) / (10.0 + before))
    share = jnp.where((step + 1) % interval == 0, 1 - now, 0)
    return jax.tree.map(lambda a, x: a + share.astype(a.dtype) * (x - a), average, tree)
