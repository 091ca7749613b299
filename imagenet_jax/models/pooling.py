"""Pooling and blurring of maps, (n, height, width, channels)."""

from functools import partial

import jax
import jax.numpy as jnp

from imagenet_jax.models.layers import Dtype


def max_pool(x: jax.Array, kernel: int, stride: int, padding: tuple[int, int]) -> jax.Array:
    """The maximum over kernel x kernel windows of (n, h, w, c), padded by (before, after) pixels on both axes. kernel: up to 15.

    A window's gradient goes to the first of its largest values, as XLA's own does. But on a GPU the latter is a scatter that adds
    bfloat16 numbers in any order, so that no run repeats another, and moves twice the bytes (docs/speed.md); so there, and on CPU,
    the forward pass notes where in each window the maximum was.
    """
    return _max_pool(x, kernel, stride, padding)


def xla_max_pool(x: jax.Array, kernel: int, stride: int, padding: tuple[int, int]) -> jax.Array:
    """`max_pool` with the gradient that XLA gives it."""
    paddings = ((0, 0), padding, padding, (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1), paddings)


_max_pool = jax.custom_vjp(xla_max_pool, nondiff_argnums=(1, 2, 3))


def _forward(x: jax.Array, kernel: int, stride: int, padding: tuple[int, int]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The maximum, and what the gradient needs: x, and the place of each window's maximum, row by row, uint8."""

    def on_tpu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = xla_max_pool(x, kernel, stride, padding)
        return y, jnp.zeros(y.shape, jnp.uint8)

    def elsewhere(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        lowest = jnp.array(-jnp.inf, x.dtype)
        y, where = lowest, jnp.uint8(0)
        for place in range(kernel * kernel):
            rows, columns = ((low, high, 0) for low, high in _edges(x.shape, place, kernel, stride, padding))
            value = jax.lax.pad(x, lowest, (_NONE, rows, columns, _NONE))[:, ::stride, ::stride]
            y, where = jnp.maximum(y, value), jnp.where(value > y, jnp.uint8(place), where)
        return y, where

    y, where = jax.lax.platform_dependent(x, tpu=on_tpu, default=elsewhere)
    return y, (x, where)


def _gradient(
    kernel: int, stride: int, padding: tuple[int, int], kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    """Place by place of the windows: those whose maximum was there send their gradient back to where it came from."""

    def on_tpu(x: jax.Array, where: jax.Array, gradient: jax.Array) -> jax.Array:
        pool = partial(xla_max_pool, kernel=kernel, stride=stride, padding=padding)
        return jax.vjp(pool, x)[1](gradient)[0]

    def elsewhere(x: jax.Array, where: jax.Array, gradient: jax.Array) -> jax.Array:
        total, zero = jnp.zeros_like(x), jnp.zeros((), x.dtype)
        for place in range(kernel * kernel):
            rows, columns = ((-low, -high, stride - 1) for low, high in _edges(x.shape, place, kernel, stride, padding))
            total += jax.lax.pad(jnp.where(where == place, gradient, zero), zero, (_NONE, rows, columns, _NONE))
        return total

    return (jax.lax.platform_dependent(*kept, gradient, tpu=on_tpu, default=elsewhere),)


_max_pool.defvjp(_forward, _gradient)

_NONE = (0, 0, 0)


def _edges(shape: tuple[int, ...], place: int, kernel: int, stride: int, padding: tuple[int, int]) -> list[tuple[int, int]]:
    """What to pad (cut off, below 0) of height and width so that every `stride`-th pixel is `place` of a window."""
    edges = []
    for side, at in zip(shape[1:3], divmod(place, kernel), strict=True):
        windows = (side + sum(padding) - kernel) // stride + 1
        low = padding[0] - at
        edges.append((low, (windows - 1) * stride + 1 - side - low))
    return edges


def blur(x: jax.Array) -> jax.Array:
    """(n, h, w, c) filtered by [1 2 1] / 4 along both axes, with zeros outside."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16


def global_pool(x: jax.Array, dtype: Dtype) -> jax.Array:
    """The mean over height and width of (n, h, w, c), summed and returned in `dtype`."""
    return jnp.mean(x, (1, 2), dtype=dtype)
