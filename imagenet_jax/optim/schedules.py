"""Learning rates as pure functions of the step."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError, unknown

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
    warmup_start: float = 0.0,
    end: float = 0.0,
    decay_at: Sequence[float] = (1 / 3, 2 / 3),
    decay_factor: float = 0.1,
    decay_steps: float = 1.0,
    power: float = 2.0,
    points: Sequence[tuple[float, float]] = (),
    cooldown_steps: int = 0,
) -> Schedule:
    """A linear warm-up over `warmup_steps`, then `name`, up to `total_steps`; linear to 0 over the last `cooldown_steps`.

    The warm-up begins at `warmup_start` of the peak; with 0, at the first of warmup_steps + 1 equal parts, since a step at rate 0
    is lost. Over the steps after it, from the peak down to the rate `end`: cosine (Loshchilov and Hutter 2017, equation 5), linear,
    and poly, where what is left of the steps is raised to `power`. Counted from step 0: step, times `decay_factor` at each share of
    the training in `decay_at`; exponential, times `decay_factor` every `decay_steps`, smoothly, and staircase, all at once then.
    rsqrt: sqrt(warmup_steps / step) (Vaswani et al. 2017, equation 3). piecewise: straight lines through `points`, (step, share of
    the peak); it has no other warm-up. constant.
    """
    after = max(1, total_steps - warmup_steps)

    def left(step: jax.Array) -> jax.Array:
        return 1 - jnp.clip((step - warmup_steps) / after, 0, 1)

    def to_end(share: jax.Array) -> jax.Array:
        return end / peak + (1 - end / peak) * share

    def stepwise(step: jax.Array) -> jax.Array:
        passed = sum((step >= round(share * total_steps)).astype(jnp.float32) for share in decay_at)
        return jnp.asarray(decay_factor, jnp.float32) ** passed

    shapes = {
        "cosine": lambda step: to_end(0.5 * (1 - jnp.cos(jnp.pi * left(step)))),
        "linear": lambda step: to_end(left(step)),
        "poly": lambda step: to_end(left(step) ** power),
        "step": stepwise,
        "exponential": lambda step: decay_factor ** (step / decay_steps),
        "staircase": lambda step: decay_factor ** jnp.floor(step / decay_steps),
        "rsqrt": lambda step: jnp.sqrt(warmup_steps / jnp.maximum(step, warmup_steps)),
        "piecewise": lambda step: jnp.interp(step, *(jnp.asarray(axis, jnp.float32) for axis in zip(*points, strict=True))),
        "constant": jnp.ones_like,
    }
    if name not in shapes:
        raise unknown("schedule", name, shapes)
    if name == "rsqrt" and not warmup_steps:
        raise UserError("schedule=rsqrt is measured in warm-ups: sqrt(warmup / step). Set --config.warmup_epochs.")
    if name == "piecewise":
        _check_points(points, warmup_steps, total_steps)

    def schedule(step: jax.Array | int) -> jax.Array:
        t = jnp.asarray(step).astype(jnp.float32)
        share = shapes[name](t)
        if warmup_steps:
            climbed = t / warmup_steps if warmup_start else (t + 1) / (warmup_steps + 1)
            share = jnp.where(t < warmup_steps, warmup_start + (1 - warmup_start) * jnp.minimum(1, climbed), share)
        if cooldown_steps:
            share = share * jnp.clip((total_steps - t) / cooldown_steps, 0, 1)
        return peak * share

    return schedule


def _check_points(points: Sequence[tuple[float, float]], warmup_steps: int, total_steps: int) -> None:
    steps = [step for step, _ in points]
    if len(steps) < 2 or steps != sorted(set(steps)) or steps[0] != 0:
        raise UserError("schedule=piecewise needs schedule_points=((epoch, share of the peak), ...) with growing epochs from 0.")
    if abs(steps[-1] - total_steps) > 1:
        raise UserError(
            f"schedule_points end after {steps[-1] / total_steps:.4g} times the training. Give points for this number of epochs; "
            "a recipe for several takes it as --config=NAME:EPOCHS."
        )
    if warmup_steps:
        raise UserError("schedule=piecewise has its warm-up in schedule_points. Set --config.warmup_epochs=0.")
