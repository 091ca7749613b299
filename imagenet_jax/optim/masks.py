"""Which parameters a rule applies to, by their paths."""

import re
from collections.abc import Sequence
from typing import Any

from imagenet_jax import tree

HEAD = re.compile(r"(fc|head|classifier)[/_]")  # the classifier, as every family names it, perhaps with a number


def decayed(params: Any, no_weight_decay: Sequence[str]) -> Any:
    """True for each parameter that weight decay applies to: no pattern of `no_weight_decay` is found in its path."""
    return tree.map_with_path(lambda path, _: not any(re.search(p, path) for p in no_weight_decay), params)


def not_of_the_head(params: Any) -> Any:
    """False for the parameters of the classifier."""
    return tree.map_with_path(lambda path, _: not HEAD.match(path), params)
