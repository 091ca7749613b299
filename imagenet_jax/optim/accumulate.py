"""Gradients of a batch that a device computes in parts, one after the other, so that one part's activations exist at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from imagenet_jax.sharding import AXES

# (params, what they are applied with, batch, key) -> (mean loss, (a sum over examples, new batch_stats)), and with gradients of the
# loss before it
Loss = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, tuple[jax.Array, Any]]]
Gradient = Callable[[Any, Any, Any, jax.Array], tuple[tuple[jax.Array, tuple[jax.Array, Any]], Any]]


def accumulated(loss: Loss, mesh: Mesh, parts: int, group: int) -> Gradient:
    """As `jax.value_and_grad(loss, has_aux=True)` of the whole batch, with each device's rows in `parts` parts.

    `group` is how many consecutive rows belong together in a part: those of a BN group, else 1. The loss is called with one group
    at a time (vectorised), with a key of the group's own, so neither devices nor parts decide what it draws; and every mean over
    groups is a mean over the batch, since all are equally long: gradients, loss and BN statistics are those of the batch in one
    piece. Devices communicate once, after the last part.
    """

    def sums(params: Any, fixed: Any, batch: Any, keys: jax.Array) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        each = jax.vmap(loss, in_axes=(None, None, 0, 0))(params, fixed, batch, keys)
        return jax.tree.map(lambda x: jnp.sum(x, 0), each)

    def on_device(params: Any, fixed: Any, batch: Any, key: jax.Array) -> tuple[tuple[jax.Array, tuple[jax.Array, Any]], Any]:
        # Marked as the device's own. Otherwise every part's gradient is summed over devices at once, to match the parameters.
        params, fixed = jax.lax.pcast((params, fixed), AXES, to="varying")
        groups = jax.tree.leaves(batch)[0].shape[0] // group
        index = jax.lax.axis_index(AXES) * groups + jnp.arange(groups)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index).reshape(parts, -1)
        rows = jax.tree.map(lambda x: x.reshape(parts, groups // parts, group, *x.shape[1:]), batch)
        gradient = jax.value_and_grad(sums, has_aux=True)

        def add(total: Any, part: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(params, fixed, *part)), None

        shapes = jax.eval_shape(gradient, params, fixed, *jax.tree.map(lambda x: x[0], (rows, keys)))
        zero = jax.lax.pcast(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), AXES, to="varying")
        total, _ = jax.lax.scan(add, zero, (rows, keys))
        (value, (counted, stats)), grads = jax.lax.psum(total, AXES)
        mean = jax.tree.map(lambda x: x / (groups * mesh.size), (value, stats, grads))
        return (mean[0], (counted, mean[1])), mean[2]

    return jax.shard_map(on_device, mesh=mesh, in_specs=(P(), P(), P(AXES), P()), out_specs=P())
