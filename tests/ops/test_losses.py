import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.ops.losses import cross_entropy, smoothed_targets, soft_cross_entropy

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)) * 3, jnp.float32)
LABELS = jnp.asarray([0, 1, 2, 3, 4, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_soft_cross_entropy_of_smoothed_targets_is_cross_entropy(smoothing):
    targets = smoothed_targets(LABELS, 5, smoothing)
    np.testing.assert_allclose(targets, np.eye(5)[LABELS] * (1 - smoothing) + smoothing / 5, atol=1e-7)
    np.testing.assert_allclose(soft_cross_entropy(LOGITS, targets), cross_entropy(LOGITS, LABELS, smoothing), rtol=1e-5)


def test_soft_cross_entropy_is_linear_in_the_targets():
    one, other = smoothed_targets(LABELS, 5), smoothed_targets(LABELS[::-1], 5, 0.1)
    mixed = soft_cross_entropy(LOGITS, 0.3 * one + 0.7 * other)
    np.testing.assert_allclose(mixed, 0.3 * soft_cross_entropy(LOGITS, one) + 0.7 * soft_cross_entropy(LOGITS, other), rtol=1e-5)
