"""Losses, an example at a time, in the dtype of the logits (float32 or wider)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from imagenet_jax.errors import unknown

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (logits, targets), both (n, classes) -> (n,)


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy, (n,), of logits (n, classes) with int labels (n,).

    With smoothing e the target is 1 - e + e/classes at the label and e/classes elsewhere (Szegedy et al. 2016, section 7;
    torch's CrossEntropyLoss has the same convention).
    """
    log_p = jax.nn.log_softmax(logits, axis=-1)
    of_label = jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
    return -(1 - label_smoothing) * of_label - label_smoothing * jnp.mean(log_p, axis=-1)


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Softmax cross-entropy, (n,), of logits (n, classes) with a distribution over the classes each, (n, classes)."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def smoothed_targets(labels: jax.Array, num_classes: int, label_smoothing: float = 0.0, dtype: Any = jnp.float32) -> jax.Array:
    """(n, num_classes) of `dtype`: the distributions with which `soft_cross_entropy` is `cross_entropy` of int labels (n,)."""
    return (1 - label_smoothing) * jax.nn.one_hot(labels, num_classes, dtype=dtype) + label_smoothing / num_classes


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross-entropy, (n,), of logits (n, classes) with targets in 0 .. 1 each, summed over the classes.

    Each class is a question of its own, so an image may have any number of them (Beyer et al. 2020, arXiv 2006.07159, section 5).
    """
    return jnp.sum(jax.nn.softplus(logits) - targets * logits, axis=-1)


def make(name: str, target_threshold: float = 0.0) -> Loss:
    """The training objective of a config: softmax, sigmoid, or sigmoid_mean, the mean over the classes as in timm.

    With `target_threshold`, targets above it count as 1 and others as 0 (timm's --bce-target-thresh: both classes of a mixed image
    are there). Raises UserError for an unknown name.
    """
    losses: dict[str, Loss] = {
        "softmax": soft_cross_entropy,
        "sigmoid": sigmoid_cross_entropy,
        "sigmoid_mean": lambda logits, targets: sigmoid_cross_entropy(logits, targets) / logits.shape[-1],
    }
    if name not in losses:
        raise unknown("loss", name, losses)
    if not target_threshold:
        return losses[name]
    return lambda logits, targets: losses[name](logits, (targets > target_threshold).astype(targets.dtype))
