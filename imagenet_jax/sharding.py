"""The mesh of devices, and how host arrays become global ones. The axes are ('data', 'fsdp'); batches are split over both."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices (or those given) along 'data'; 'fsdp' has length 1.

    Auto axes on purpose: jax.make_mesh's default, Explicit, breaks Linen's Conv under a sharded batch.
    """
    devices = list(devices or jax.devices())
    return jax.make_mesh((len(devices), 1), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows of a batch, as global arrays split over the mesh. Starts the copies and does not wait for them."""
    sharding = batched(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def rows_of_process(batch_size: int) -> tuple[int, int]:
    """(first row, number of rows) of the global batch that this process feeds: contiguous blocks in process order."""
    share = batch_size // jax.process_count()
    return jax.process_index() * share, share


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Host arrays, the same on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))
