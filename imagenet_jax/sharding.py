"""The mesh of devices, where arrays lie on it, and how host arrays become global ones.

The axes are ('data', 'fsdp'). A batch is split over both. The state is the same on every device along 'data' and split along
'fsdp', as in ZeRO (Rajbhandari et al. 2019, arXiv 1910.02054): large leaves are cut into equal parts, gathered once a step, where
they are needed whole, and their gradients come back in parts.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from imagenet_jax.errors import UserError

AXES = ("data", "fsdp")
SHARDED_FROM = 1 << 14  # elements: smaller leaves (64 KiB in float32) stay whole, since gathering them costs latency, not bytes


def make_mesh(devices: Sequence[Any] | None = None, fsdp: int = 1) -> Mesh:
    """All devices (or those given), `fsdp` neighbours of which share one copy of the state; the other axis is 'data'.

    Processes follow each other in the mesh, so the rows of a process (`rows_of_process`) are one block of the batch. Auto axes on
    purpose: jax.make_mesh's default, Explicit, breaks Linen's Conv under a sharded batch. Raises UserError where `fsdp` does not
    divide the devices.
    """
    ordered = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
    if fsdp < 1 or len(ordered) % fsdp:
        possible = [n for n in range(1, len(ordered) + 1) if len(ordered) % n == 0]
        raise UserError(f"mesh.fsdp={fsdp} does not divide {len(ordered)} devices. Use one of {', '.join(map(str, possible))}.")
    return Mesh(np.array(ordered).reshape(-1, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def of_state(mesh: Mesh, tree: Any) -> Any:
    """Where each leaf of a state (arrays or shapes) lies; the same for a parameter, its momentum and its average.

    A leaf of `SHARDED_FROM` elements or more is split along 'fsdp' on its longest axis that divides, the last of equal ones;
    all others are whole on every device.
    """
    parts = mesh.shape["fsdp"]

    def place(leaf: Any) -> NamedSharding:
        fitting = [axis for axis, length in enumerate(leaf.shape) if length % parts == 0]
        if parts == 1 or leaf.size < SHARDED_FROM or not fitting:
            return replicated(mesh)
        longest = max(fitting, key=lambda axis: (leaf.shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(place, tree)


def gathered(mesh: Mesh, tree: Any) -> Any:
    """Inside jit: parameters whole on every device."""
    return tree if mesh.shape["fsdp"] == 1 else jax.lax.with_sharding_constraint(tree, replicated(mesh))


def scattered(mesh: Mesh, tree: Any) -> Any:
    """Inside jit: gradients where their parameters lie, so that everything after them is computed in parts."""
    return tree if mesh.shape["fsdp"] == 1 else jax.lax.with_sharding_constraint(tree, of_state(mesh, tree))


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows of a batch, as global arrays split over the mesh. Starts the copies and does not wait for them."""
    sharding = batched(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def batch_shapes(mesh: Mesh, batch_size: int, image_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What `put_batch` makes of a training batch, without its values."""
    return {
        "image": jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), "uint8", sharding=batched(mesh)),
        "label": jax.ShapeDtypeStruct((batch_size,), "int32", sharding=batched(mesh)),
    }


def rows_of_process(batch_size: int) -> tuple[int, int]:
    """(first row, number of rows) of the global batch that this process feeds: contiguous blocks in process order."""
    share = batch_size // jax.process_count()
    return jax.process_index() * share, share


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Arrays of the host or of the mesh, whole on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))
