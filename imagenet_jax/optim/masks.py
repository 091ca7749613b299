"""Which parameters a rule applies to, by their paths."""

import re
from collections.abc import Sequence
from typing import Any

from imagenet_jax import tree


def decayed(params: Any, no_weight_decay: Sequence[str]) -> Any:
    """True for each parameter that weight decay applies to: no pattern of `no_weight_decay` is found in its path."""
    return tree.map_with_path(lambda path, _: not any(re.search(p, path) for p in no_weight_decay), params)


def not_of_the_head(params: Any) -> Any:
    """False for the parameters of the classifier, which every family names fc, head or classifier, perhaps with a number."""
    return tree.map_with_path(lambda path, _: not re.match(r"(fc|head|classifier)[/_]", path), params)
