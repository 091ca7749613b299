"""Averages of parameters and BN statistics that a run keeps beside them, of one kind at a time, and evaluates.

An average is {"params", "batch_stats", "weight"}, where "weight" says how much went into it: the updates so far, or what
schedule-free learning weighs them with. It is part of the state, so a step that was skipped counts for nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# (average, {"params", "batch_stats"} after a step, steps before it, its learning rate) -> (average, what training goes on with)
Average = Callable[[Any, Any, jax.Array, jax.Array], tuple[Any, Any]]


def init(variables: Any) -> Any:
    """The average before the first step: a copy of {"params", "batch_stats"}, of no weight."""
    wide = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(variables)))
    return {**variables, "weight": jnp.zeros((), wide)}


def ema(decay: float, interval: int = 1) -> Average:
    """decay * average + (1 - decay) * new at the end of every `interval`-th step, with the decay capped at (1 + n) / (10 + n).

    n counts the updates before this one. The cap (tf.train.ExponentialMovingAverage's `num_updates`) forgets the initial weights
    quickly: with 0.9999 alone they would still weigh 37 % after 10,000 steps.
    """

    def update(average: Any, new: Any, step: jax.Array, rate: jax.Array) -> tuple[Any, Any]:
        n, due = average["weight"], (step + 1) % interval == 0
        return _moved(average, new, jnp.where(due, 1 - jnp.minimum(decay, (1 + n) / (10 + n)), 0), n + due), new

    return update


def swa(start: int, interval: int = 1) -> Average:
    """The plain mean of the weights after step `start` and every `interval` steps from there; until then the newest weights.

    Izmailov et al. 2018, arXiv 1803.05407, algorithm 1. Its BN statistics are estimated anew (moments.py).
    """

    def update(average: Any, new: Any, step: jax.Array, rate: jax.Array) -> tuple[Any, Any]:
        n, since = average["weight"], step + 1 - start
        due = (since >= 0) & (since % interval == 0)
        return _moved(average, new, jnp.where(due, 1 / (1 + n), (since < 0).astype(n.dtype)), n + due), new

    return update


def lookahead(decay: float, interval: int, total_steps: int) -> Average:
    """Slow weights that training returns to every `interval` steps (Zhang et al. 2019, arXiv 1907.08610, algorithm 1).

    They keep the share decay * (step / total_steps)^3 of themselves, which rises as in airbench (Jordan 2024, arXiv 2404.00498),
    and BN statistics are treated alike, as there.
    """

    def update(average: Any, new: Any, step: jax.Array, rate: jax.Array) -> tuple[Any, Any]:
        n, due = average["weight"], (step + 1) % interval == 0
        kept = decay * ((step + 1).astype(n.dtype) / total_steps) ** 3
        slow = _moved(average, new, jnp.where(due, 1 - kept, 0), n + due)
        return slow, jax.tree.map(lambda a, x: jnp.where(due, a, x), {key: slow[key] for key in new}, new)

    return update


def schedule_free(average: Any, new: Any, step: jax.Array, rate: jax.Array) -> tuple[Any, Any]:
    """The sequence x of Defazio et al. 2024 (arXiv 2405.15682, equation 5): z, the parameters, weighted with the rate's square.

    Gradients are taken between both (`between`). As optax.contrib.schedule_free, which keeps y and z and computes x from them.
    """
    weight = average["weight"] + jnp.square(rate).astype(average["weight"].dtype)
    share = jnp.where(weight > 0, jnp.square(rate) / weight, 0)
    return _moved(average, new, share, weight), new


def between(beta: float, params: Any, average: Any) -> Any:
    """Where schedule-free learning takes its gradients: y = (1 - beta) * z + beta * x (arXiv 2405.15682, equation 3)."""
    return jax.tree.map(lambda z, x: (1 - beta) * z + beta * x, params, average["params"])


def _moved(average: Any, new: Any, share: jax.Array, weight: jax.Array) -> Any:
    """The average, moved by `share` of the way to `new`."""
    moved = jax.tree.map(lambda a, x: a + share.astype(a.dtype) * (x - a), {key: average[key] for key in new}, new)
    return {**moved, "weight": weight}
