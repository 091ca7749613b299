"""Losses, an example at a time, in the dtype of the logits (float32 or wider)."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax.data.labels.hierarchy import depths_of
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


HEAVIEST = 20.0  # the weight of a group where few classes lie as deep, in Ridnik et al.'s code (semantics.py)


def semantic_cross_entropy(logits: jax.Array, targets: jax.Array, parents: np.ndarray, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropies of one softmax for each depth, weighted and summed, (n,) (Ridnik et al. 2021, arXiv 2104.10972, section 3.3).

    `parents`, int (classes,), has the index of the class of which each class is a kind, -1 where there is none: an image of a class
    is one of every class above it, and a group are those with as many above. `targets` (n, classes), not smoothed, may be mixed. A
    group is smoothed by itself, and weighs classes / (classes as deep or deeper), up to `HEAVIEST`. Groups deeper than the label
    are not asked for, and one of a single class adds 0. (Their code leaves out the deepest group too: 6 of 10,450 classes.)
    """
    depths, deeper = depths_of(parents), np.zeros(0, int)
    total, below = jnp.zeros_like(logits[:, 0]), targets[:, :0]
    for depth in range(depths.max(), -1, -1):
        (group,) = np.nonzero(depths == depth)
        present = targets[:, group].at[:, np.searchsorted(group, parents[deeper])].add(below)
        deeper, below = group, present
        # Columns group by group: masks over all take 7 times as long and 4 times the bytes (10,450 classes, two CPU cores, n = 3).
        own = logits[:, group]
        known = jnp.sum(present, axis=-1)
        hit = (1 - label_smoothing) * jnp.sum(present * own, axis=-1) + label_smoothing * known * jnp.mean(own, axis=-1)
        weight = min(HEAVIEST, float(len(depths) / np.sum(depths >= depth)))
        total += weight * (known * jax.nn.logsumexp(own, axis=-1) - hit)
    return total


def make(name: str, target_threshold: float = 0.0, parents: np.ndarray | None = None, label_smoothing: float = 0.0) -> Loss:
    """The training objective of a config: softmax, sigmoid, sigmoid_mean (over the classes, as in timm), or semantic_softmax.

    With `target_threshold`, targets above it count as 1 and others as 0 (timm's --bce-target-thresh: both classes of a mixed image
    are there). semantic_softmax needs `parents`, and does the smoothing itself. Raises UserError for an unknown name.
    """
    losses: dict[str, Loss] = {
        "softmax": soft_cross_entropy,
        "sigmoid": sigmoid_cross_entropy,
        "sigmoid_mean": lambda logits, targets: sigmoid_cross_entropy(logits, targets) / logits.shape[-1],
        "semantic_softmax": lambda logits, targets: semantic_cross_entropy(logits, targets, cast(Any, parents), label_smoothing),
    }
    if name not in losses:
        raise unknown("loss", name, losses)
    if not target_threshold:
        return losses[name]
    return lambda logits, targets: losses[name](logits, (targets > target_threshold).astype(targets.dtype))
