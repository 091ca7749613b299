"""BatchNorm statistics of averaged weights, which no training step computes: those of the run's last batches.

The statistics that were averaged along with the weights are other networks'. For an exponential average, whose networks lie close
together, that serves; SWA and schedule-free learning need their own (Izmailov et al. 2018, arXiv 1803.05407, section 3.2).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from imagenet_jax import sharding
from imagenet_jax import step as steps
from imagenet_jax.state import TrainState

IMAGES = 12_800  # some 10,000 are enough: Wu and Johnson 2021 (arXiv 2105.07576), the end of section 3.2


def estimator(
    model: Any, c: dict[str, Any], mesh: Mesh, abstract: TrainState, views: Callable[..., Iterator[Any]]
) -> Callable[[TrainState], TrainState]:
    """State -> the same with its average's BN statistics estimated anew, where the config's kind of average needs it.

    They are the means, over the batches of the last steps, `IMAGES` images or all so far, of the batch statistics that running
    ones are made of (as torch.optim.swa_utils.update_bn): a function of average and step alone, which no training step reads, so a
    resume stays exact. Views are not mixed. `views(start=, stop=)` gives the host batches of these steps.
    """
    if not (c["swa_start"] or c["schedule_free"]) or not jax.tree.leaves(abstract.batch_stats) or c["bn_frozen"]:
        return lambda state: state
    place, split = sharding.replicated(mesh), sharding.batched(mesh)
    moments = steps.make_moments_step(model, mean=c["mean"], std=c["std"], seed=c["seed"])
    of_batch = jax.jit(moments, in_shardings=(place, split, place), out_shardings=place)
    where = jax.tree.map(lambda x: x.sharding, abstract.ema["batch_stats"])
    last = -(-IMAGES // c["batch_size"])

    def estimate(state: TrainState) -> TrainState:
        stop = int(state.step)
        numbers = range(max(0, stop - last), stop)
        if not numbers:
            return state
        # With the run's own statistics: BatchNorm rounds relative to them, and the average's depend on when they were estimated.
        variables = sharding.replicate(mesh, {"params": state.ema["params"], "batch_stats": state.batch_stats})
        total: Any = None
        for number, batch in zip(numbers, views(start=numbers.start, stop=stop), strict=True):
            images = sharding.put_batch(mesh, {"image": batch["image"]})["image"]
            found = jax.block_until_ready(of_batch(variables, images, number))
            total = found if total is None else jax.tree.map(lambda a, b: a + b, total, found)
        mean = jax.tree.map(lambda x: x / len(numbers), total)
        return dataclasses.replace(state, ema={**state.ema, "batch_stats": jax.device_put(mean, where)})

    return estimate
