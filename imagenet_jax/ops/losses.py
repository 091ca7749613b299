"""Losses, an example at a time, in the dtype of the logits (float32 or wider)."""

import jax
import jax.numpy as jnp


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


def smoothed_targets(labels: jax.Array, num_classes: int, label_smoothing: float = 0.0) -> jax.Array:
    """float32 (n, num_classes): the distributions with which `soft_cross_entropy` is `cross_entropy` of int labels (n,)."""
    return (1 - label_smoothing) * jax.nn.one_hot(labels, num_classes, dtype=jnp.float32) + label_smoothing / num_classes
