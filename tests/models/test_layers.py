"""Initial distributions, paddings, and the end of a residual block."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.models import layers


def test_initial_distributions_are_torchs():
    kernel = layers.conv(256, 3, dtype=jnp.float32, param_dtype=jnp.float32, name="c").init(
        jax.random.key(0), jnp.ones((1, 8, 8, 64))
    )["params"]["kernel"]
    assert jnp.std(kernel) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert jnp.max(jnp.abs(kernel)) > 4 * jnp.std(kernel)  # torchvision's normal is not truncated

    dense = layers.linear(1000, 64, dtype=jnp.float32, param_dtype=jnp.float32, name="d").init(
        jax.random.key(0), jnp.ones((1, 64))
    )["params"]
    for leaf in dense.values():
        assert jnp.max(jnp.abs(leaf)) == pytest.approx(1 / 8, rel=0.02)
        assert jnp.std(leaf) == pytest.approx(1 / 8 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_convolutions_pad_symmetrically(kernel):
    """The first output is centred on the first pixel, at even sizes and stride 2; with "SAME" it is not."""
    conv = layers.conv(1, kernel, 2, dtype=jnp.float32, param_dtype=jnp.float32, name="c")
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    centre = jnp.zeros((kernel, kernel, 1, 1)).at[kernel // 2, kernel // 2].set(1)
    np.testing.assert_array_equal(conv.apply({"params": {"kernel": centre}}, x), x[:, ::2, ::2])


def test_the_end_of_a_residual_block_has_the_gradient_of_its_formula(x64):
    branch, shortcut, weights = np.random.default_rng(0).normal(size=(3, 2, 4, 4, 5))
    branch[0], shortcut[0] = 1, -1  # a sum of exactly 0, where jax.nn.relu's gradient is 0 too

    def of(join):
        return jax.jit(jax.value_and_grad(lambda b, s: jnp.sum(weights * join(b, s)), (0, 1)))(branch, shortcut)

    jax.tree.map(np.testing.assert_array_equal, of(layers.join), of(lambda b, s: nn.relu(b + s)))
