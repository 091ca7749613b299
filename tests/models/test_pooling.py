"""Pooling, its padding and its gradient, against XLA's own."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.models import pooling


def test_max_pool_pads_both_sides():
    """(1, 1) is torch's; on even sizes, (0, 1) is "SAME". Negative maps: a padding with zeros would show."""
    x = -1 - jnp.arange(36.0).reshape(1, 6, 6, 1)
    x = jnp.concatenate([x, jax.random.normal(jax.random.key(0), (1, 6, 6, 1)) - 9], -1)
    same = nn.max_pool(x, (3, 3), (2, 2), "SAME")
    np.testing.assert_array_equal(pooling.max_pool(x, 3, 2, (0, 1)), same)
    torchs = pooling.max_pool(x, 3, 2, (1, 1))
    np.testing.assert_array_equal(torchs[0, :, :, 0], [[-1, -2, -4], [-7, -8, -10], [-19, -20, -22]])
    assert torchs.shape == same.shape


@pytest.mark.parametrize("sides", [(14, 14), (15, 13)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, (1, 1)), (3, 2, (0, 1)), (2, 2, (0, 0)), (3, 3, (0, 0)), (5, 2, (2, 2))]
)
def test_max_pool_and_its_gradient_are_xlas_also_where_maxima_are_equal(x64, kernel, stride, padding, sides):
    """Small integers, so that most windows hold their maximum several times: the first of them gets the gradient."""
    rng = np.random.default_rng(0)
    x = jnp.maximum(rng.integers(-2, 4, (2, *sides, 3)).astype(float), 0)
    y, gradient = jax.vjp(partial(pooling.max_pool, kernel=kernel, stride=stride, padding=padding), x)
    expected, xlas = jax.vjp(partial(pooling.xla_max_pool, kernel=kernel, stride=stride, padding=padding), x)
    np.testing.assert_array_equal(y, expected)
    weights = rng.normal(size=y.shape)
    np.testing.assert_allclose(gradient(weights)[0], xlas(weights)[0], atol=1e-14)


def test_what_is_not_finite_stays_so():
    x = jnp.ones((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan).at[0, 3, 3, 0].set(-jnp.inf)
    y, _ = jax.vjp(lambda x: pooling.max_pool(x, 2, 2, (0, 0)), x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[jnp.nan, 1], [1, 1]])
