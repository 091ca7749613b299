"""Everything that a run's next step depends on, as one tree of arrays. Order and randomness follow from `step` alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from imagenet_jax.optim import averages


@struct.dataclass
class TrainState:
    """Arrays only. `ema` is an average of whatever kind (optim/averages.py), or {} where none is kept."""

    step: jax.Array  # int32 scalar: batches taken from the data so far
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any

    def variables(self, weights: str = "raw") -> dict[str, Any]:
        """What the model is applied to: the "raw" weights or their average, "ema"."""
        if weights == "ema":
            return {key: self.ema[key] for key in ("params", "batch_stats")}
        return {"params": self.params, "batch_stats": self.batch_stats}


def make_init(
    init_model: Callable[[Any], dict[str, Any]], optimizer: optax.GradientTransformation, *, with_ema: bool
) -> Callable[[Any], TrainState]:
    """A function from what `init_model` makes variables of (a PRNG key) to the state at step 0, to be jitted by the caller."""

    def init(given: Any) -> TrainState:
        variables = init_model(given)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            ema=averages.init({"params": params, "batch_stats": batch_stats}) if with_ema else {},
        )

    return init
