"""How many steps a run has, and what happens at which."""

import math
from collections.abc import Sequence
from typing import Any

from imagenet_jax.errors import UserError


class Plan:
    """Step counts of a run of config `c` over `examples` training examples. UserError: more steps than can be counted."""

    def __init__(self, c: dict[str, Any], examples: int):
        self.batch_size, self.bn_group = c["batch_size"], c["bn_group"]
        self.per_epoch = examples / c["batch_size"]
        self.total = max(1, round(c["epochs"] * self.per_epoch))
        if self.total >= 2**31:
            raise UserError(f"epochs={c['epochs']:g} are {self.total:.3g} steps, and steps are counted up to 2^31.")
        self.warmup = round(c["warmup_epochs"] * self.per_epoch)
        every = max(1.0, c["eval_interval_epochs"] * self.per_epoch)
        between = range(1, int(self.total / every) + 1) if c["eval_interval_epochs"] else ()
        self.eval_steps = frozenset(round(k * every) for k in between) - {self.total}  # the last one comes after the loop

    def sizes(self, by_epoch: Sequence[tuple[float, int]]) -> tuple[tuple[int, int], ...]:
        """((from this epoch on, pixels), ...) by step."""
        return tuple((round(epoch * self.per_epoch), side) for epoch, side in by_epoch)

    def epoch(self, step: int) -> float:
        """Passes over the training split after `step` steps."""
        return step / self.per_epoch

    def multiple(self, devices: int) -> int:
        """What a smaller batch size must be a multiple of."""
        return math.lcm(devices, self.bn_group or 1)
