"""Batch normalisation over groups of examples, whose result does not depend on the devices."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import Dtype

MOMENTS = "moments"  # a collection that, where it is mutable, receives each BatchNorm's mean and var of the batch
RUNNING = -1  # as the group of a BatchNorm: none, the running statistics serve in training too


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) with torch's conventions, over groups of consecutive examples.

    group: how many consecutive examples share statistics; 0 = the whole batch, over all devices. The result depends on
    this number only, never on the device count. Where it divides the examples of a device, statistics need no
    communication; with 0, every layer costs an all-reduce forward and another backward. RUNNING: training too normalises
    with the running statistics, and keeps them.
    x: (n, ..., channels); the result has x's shape and `dtype`. Parameters scale, bias; batch_stats mean, var.
    kernel: where there is one, (inputs, channels), x @ kernel is normalised, x being (n, ..., inputs): see `_of_product`.
    Statistics are float32 or wider. The batch's own go to MOMENTS, if asked for. Raises UserError where `group` does not divide n,
    or one value alone is normalised.
    """

    group: int = 0
    momentum: float = 0.9  # new = 0.9 old + 0.1 batch; torch calls this momentum 0.1
    epsilon: float = 1e-5
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    affine: bool = True  # whether there are a scale and a bias
    train: bool = False  # normalise with the batch's statistics and update the running ones; else use the running ones

    @nn.compact
    def __call__(self, x: jax.Array, kernel: jax.Array | None = None) -> jax.Array:
        channels = (x if kernel is None else kernel).shape[-1]
        stats_dtype = jnp.promote_types(self.param_dtype, jnp.float32)
        scale, bias = jnp.ones((channels,), self.param_dtype), jnp.zeros((channels,), self.param_dtype)
        if self.affine:
            scale = self.param("scale", self.scale_init, (channels,), self.param_dtype)
            bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), stats_dtype)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), stats_dtype)

        base, wide = mean.value, jnp.promote_types(self.dtype, stats_dtype)
        grouped = x
        if self.train and self.group != RUNNING:
            group = self._group(x)
            grouped = x.reshape(-1, group, *x.shape[1:])
            # (groups, channels); `shift` is the mean less the running one.
            shift, variance = _of_map(grouped.astype(wide), base) if kernel is None else _of_product(grouped, kernel, base)
            if not self.is_initializing():
                count = group * math.prod(x.shape[1:-1])
                # torch keeps the unbiased variance in running_var but normalises with the biased one.
                unbiased = jnp.mean(variance, 0) * (count / (count - 1))
                for name, moment in (("mean", mean.value + jnp.mean(shift, 0)), ("var", unbiased)):
                    self.sow(MOMENTS, name, moment, reduce_fn=lambda _, new: new, init_fn=lambda: jnp.zeros(()))
                mean.value += (1 - self.momentum) * jnp.mean(shift, 0).astype(stats_dtype)
                var.value = self.momentum * var.value + (1 - self.momentum) * unbiased.astype(stats_dtype)
            shift, variance = _grouped(shift, grouped.ndim), _grouped(variance, grouped.ndim)
        else:
            shift, variance = 0, _channels_last(var.value, x.ndim)
        slope = jax.lax.rsqrt(variance + self.epsilon) * _channels_last(scale, grouped.ndim)
        offset = _channels_last(bias, grouped.ndim) - shift * slope
        if kernel is None:
            y = (grouped.astype(wide) - _channels_last(base, grouped.ndim)) * slope + offset
        else:
            # (groups, inputs, channels); with running statistics, one for all.
            folded = (kernel[None] * slope.reshape(-1, 1, channels)).astype(self.dtype)
            y = jnp.einsum("g...k,gkc->g...c", x.reshape(len(folded), -1, *x.shape[1:]), folded)
            y = y.reshape(*grouped.shape[:-1], channels) + (offset - _channels_last(base, grouped.ndim) * slope)
        return y.astype(self.dtype).reshape(*x.shape[:-1], channels)

    def _group(self, x: jax.Array) -> int:
        n = x.shape[0]
        group = self.group or n
        if n % group:
            raise UserError(
                f"bn_group={group} does not divide the batch of {n} ({n} = {n // group} x {group} + {n % group}). "
                "Use a BN group that divides the batch size, or 0 for the whole batch."
            )
        if group * math.prod(x.shape[1:-1]) == 1:
            raise UserError(
                f"Batch normalisation over a single value has no variance: bn_group={self.group} with maps of shape "
                f"{x.shape[1:]}. Use a larger BN group (or batch), or larger images."
            )
        return group


def _of_map(grouped: jax.Array, base: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean less `base`, and variance, (groups, channels), of x (groups, n, ..., channels).

    Relative to the running mean, both sums take one pass over x, and yet E[x^2] - E[x]^2 does not cancel, since E[x] is small. It
    stays inside XLA's fusions: nothing wide is stored.
    """
    centred = grouped - _channels_last(base, grouped.ndim)
    axes = tuple(range(1, grouped.ndim - 1))
    shift = jnp.mean(centred, axes)
    return shift, jnp.maximum(jnp.mean(jnp.square(centred), axes) - jnp.square(shift), 0)


def _of_product(grouped: jax.Array, kernel: jax.Array, base: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_of_map` of x @ kernel without computing it: E[x] kernel, and for each column k of the kernel, k^T Cov[x] k.

    So the backward pass does not need x @ kernel either: it is never stored.
    """
    n = math.prod(grouped.shape[1:-1])
    exact = "highest" if grouped.dtype == kernel.dtype else None  # products of bfloat16 are exact in float32 as they are
    mean = jnp.mean(grouped, tuple(range(1, grouped.ndim - 1)), dtype=kernel.dtype)
    second = jnp.einsum("g...k,g...l->gkl", grouped, grouped, precision=exact, preferred_element_type=kernel.dtype) / n
    covariance = second - mean[:, :, None] * mean[:, None, :]
    shift = jnp.matmul(mean, kernel, precision="highest") - base[None]
    mixed = jnp.einsum("gkl,lc->gkc", covariance, kernel, precision="highest")
    return shift, jnp.maximum(jnp.sum(mixed * kernel[None], 1), 0)


def _channels_last(vector: jax.Array, ndim: int) -> jax.Array:
    """(channels,) to (1, ..., 1, channels): ranks are never promoted silently here."""
    return vector.reshape((1,) * (ndim - 1) + vector.shape)


def _grouped(matrix: jax.Array, ndim: int) -> jax.Array:
    """(groups, channels) to (groups, 1, ..., 1, channels)."""
    return matrix.reshape(matrix.shape[:1] + (1,) * (ndim - 2) + matrix.shape[1:])
