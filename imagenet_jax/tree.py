"""Pytrees by name: leaves as (path, leaf), and arithmetic that several rooms need."""

from typing import Any

import jax


def paths(tree: Any) -> list[tuple[str, Any]]:
    """(path, leaf) for every leaf, the path written "layer1_0/conv1/kernel"."""
    return [(path_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def map_with_path(function: Any, tree: Any) -> Any:
    """`function(path, leaf)` for every leaf, with the path written as in `paths`."""
    return jax.tree.map_with_path(lambda path, leaf: function(path_name(path), leaf), tree)


def path_name(path: tuple[Any, ...]) -> str:
    """jax's key path as one string with slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def count(tree: Any) -> int:
    """Number of scalars in all leaves (arrays or shapes)."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
