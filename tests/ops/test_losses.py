import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.ops.losses import (
    cross_entropy,
    make,
    semantic_cross_entropy,
    sigmoid_cross_entropy,
    smoothed_targets,
    soft_cross_entropy,
)

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


# Two roots, 3 and 5; 0 and 4 are kinds of 3, 6 of 5; 1 and 2 are kinds of 0; 7 of 2, alone in its group.
PARENTS = np.array([3, 0, 0, -1, 3, -1, 5, 2], np.int32)


def semantic(logits, targets, smoothing=0.0, parents=PARENTS):
    """Compiled as one: its pieces one by one take seconds."""
    return jax.jit(lambda x, t: semantic_cross_entropy(x, t, parents, smoothing))(logits, targets)


def by_hand(logits, label, smoothing, heaviest=20.0):
    """The formula of Ridnik et al., for one image, group by group: chain of the label's classes, a softmax for each depth."""
    chain = [label]
    while PARENTS[chain[0]] >= 0:
        chain.insert(0, PARENTS[chain[0]])
    groups = [[3, 5], [0, 4, 6], [1, 2], [7]]
    loss = 0.0
    for depth, group in enumerate(groups):
        if depth >= len(chain) or len(group) == 1:
            continue
        log_p = logits[group] - np.log(np.sum(np.exp(logits[group])))
        target = np.full(len(group), smoothing / len(group))
        target[group.index(chain[depth])] += 1 - smoothing
        loss -= min(heaviest, 8 / sum(len(g) for g in groups[depth:])) * np.sum(target * log_p)
    return loss


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_semantic_cross_entropy_is_the_formula_group_by_group(smoothing, x64):
    logits = np.random.default_rng(2).normal(size=(8, 8)) * 3
    got = semantic(logits, np.eye(8), smoothing)
    np.testing.assert_allclose(got, [by_hand(row, label, smoothing) for label, row in enumerate(logits)], rtol=1e-12)
    made = jax.jit(make("semantic_softmax", parents=PARENTS, label_smoothing=smoothing))
    np.testing.assert_allclose(made(logits, np.eye(8)), got)


def test_semantic_cross_entropy_of_mixed_images_is_mixed():
    logits = np.random.default_rng(3).normal(size=(8, 8)).astype(np.float32)
    one, other = np.eye(8, dtype=np.float32), np.eye(8, dtype=np.float32)[::-1]
    mixed = semantic(logits, 0.3 * one + 0.7 * other, 0.1)
    parts = [semantic(logits, targets, 0.1) for targets in (one, other)]
    np.testing.assert_allclose(mixed, 0.3 * parts[0] + 0.7 * parts[1], rtol=1e-5)


def test_semantic_cross_entropy_asks_nothing_of_what_lies_below_the_label():
    gradient = jax.grad(lambda x: jnp.sum(semantic(x, np.eye(8)[3:4], 0.2)))(jnp.ones((1, 8)))
    assert np.flatnonzero(gradient[0]).tolist() == [3, 5]  # the label is a root


def test_without_kinds_of_kinds_the_semantic_softmax_is_a_softmax():
    alone = np.full(5, -1, np.int32)
    got = semantic(LOGITS, np.eye(5)[LABELS], 0.1, alone)
    np.testing.assert_allclose(got, cross_entropy(LOGITS, LABELS, 0.1), rtol=1e-5)


def test_a_group_of_few_weighs_at_most_twenty():
    parents = np.array([-1] * 40 + [0, 0], np.int32)  # 42 / 2 would be 21
    got = semantic(np.zeros((2, 42)), np.eye(42)[[1, 41]], parents=parents)
    np.testing.assert_allclose(got, [np.log(40), np.log(40) + 20 * np.log(2)], rtol=1e-6)
