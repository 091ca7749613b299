"""Which parameters a rule applies to, by their paths."""

import re
from collections.abc import Sequence
from typing import Any

import jax

from imagenet_jax import tree
from imagenet_jax.errors import UserError

HEAD = re.compile(r"(fc|head|classifier)[/_]")  # the classifier, as every family names it, perhaps with a number


def decayed(params: Any, no_weight_decay: Sequence[str]) -> Any:
    """True for each parameter that weight decay applies to: no pattern of `no_weight_decay` is found in its path."""
    return tree.map_with_path(lambda path, _: not any(re.search(p, path) for p in no_weight_decay), params)


def frozen(params: Any, patterns: Sequence[str]) -> Any:
    """True for each parameter in whose path one of `patterns` is found.

    Raises UserError for a pattern that is found in none, and where nothing is left to train.
    """
    paths = [path for path, _ in tree.paths(params)]
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            tops = ", ".join(dict.fromkeys(path.split("/")[0] for path in paths))
            raise UserError(f"frozen has {pattern!r}, which is found in no parameter's path. They begin with: {tops}.")
    found = tree.map_with_path(lambda path, _: any(re.search(p, path) for p in patterns), params)
    if all(jax.tree.leaves(found)):
        raise UserError(f"frozen={tuple(patterns)} leaves no parameter to train.")
    return found


def not_of_the_head(params: Any) -> Any:
    """False for the parameters of the classifier."""
    return tree.map_with_path(lambda path, _: not HEAD.match(path), params)
