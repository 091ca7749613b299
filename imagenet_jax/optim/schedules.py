"""Learning rates as pure functions of the step."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from imagenet_jax.errors import unknown

Schedule = Callable[[jax.Array | int], jax.Array]  # step -> learning rate, float32 scalar


def peak(learning_rate: float, batch_size: int, scaling: str, reference: int) -> float:
    """The peak learning rate at `batch_size`, given the one at the `reference` batch.

    linear: Goyal et al. 2017, section 2.1; sqrt: Krizhevsky 2014, section 5; none: as given.
    """
    ratio = batch_size / reference
    rules = {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}
    if scaling not in rules:
        raise unknown("lr_scaling", scaling, rules)
    return learning_rate * rules[scaling]


def make(
    name: str,
    *,
    peak: float,
    total_steps: int,
    warmup_steps: int = 0,
    decay_at: Sequence[float] = (1 / 3, 2 / 3),
    decay_factor: float = 0.1,
) -> Schedule:
    """A linear warm-up from 0 over `warmup_steps`, then `name`: cosine to 0, step, or constant, up to `total_steps`.

    cosine: Loshchilov and Hutter 2017, equation 5, over the steps after the warm-up. step: times `decay_factor` at each share
    of the training in `decay_at`.
    """

    def cosine(step: jax.Array) -> jax.Array:
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))

    def stepwise(step: jax.Array) -> jax.Array:
        passed = sum((step >= round(share * total_steps)).astype(jnp.float32) for share in decay_at)
        return jnp.asarray(decay_factor, jnp.float32) ** passed

    def constant(step: jax.Array) -> jax.Array:
        return jnp.ones_like(step)

    shapes = {"cosine": cosine, "step": stepwise, "constant": constant}
    if name not in shapes:
        raise unknown("schedule", name, shapes)

    def schedule(step: jax.Array | int) -> jax.Array:
        t = jnp.asarray(step).astype(jnp.float32)
        warm = jnp.minimum(1.0, (t + 1) / (warmup_steps + 1)) if warmup_steps else jnp.ones_like(t)
        return peak * jnp.where(t < warmup_steps, warm, shapes[name](t))

    return schedule
