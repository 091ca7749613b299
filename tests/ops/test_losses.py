import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.ops.losses import cross_entropy, make, sigmoid_cross_entropy, smoothed_targets, soft_cross_entropy

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


def test_sigmoid_cross_entropy_is_torchs(torch):
    targets = np.random.default_rng(1).uniform(size=(6, 5)).astype(np.float32)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(np.asarray(LOGITS)), torch.tensor(targets), reduction="none"
    )
    np.testing.assert_allclose(make("sigmoid")(LOGITS, jnp.asarray(targets)), theirs.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(make("sigmoid_mean")(LOGITS, jnp.asarray(targets)), theirs.mean(-1), rtol=1e-5)


def test_a_threshold_makes_both_classes_of_a_mixed_image_present():
    mixed = 0.3 * smoothed_targets(LABELS, 5, 0.1) + 0.7 * smoothed_targets(LABELS[::-1], 5, 0.1)
    both = jnp.maximum(smoothed_targets(LABELS, 5), smoothed_targets(LABELS[::-1], 5))
    np.testing.assert_allclose(make("sigmoid", 0.2)(LOGITS, mixed), sigmoid_cross_entropy(LOGITS, both), rtol=1e-6)


def test_a_loss_that_is_not_there():
    with pytest.raises(UserError, match="Did you mean 'sigmoid'"):
        make("sigmod")
