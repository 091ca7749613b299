"""Readable names for ImageNet's classes.

The table (`imagenet_classes.tsv`: wnid, name, in the official label order) is derived from WordNet 3.0 by
`builders/make_imagenet_classes.py`; WordNet's licence lies beside it. No two of its names are the same.
"""

import functools
import importlib.resources
from collections.abc import Sequence


def readable(names: Sequence[str]) -> list[str]:
    """Names for people: 'n01440764' becomes 'tench' where all `names` are wnids of ILSVRC 2012.

    A list with any other name in it comes back unchanged: half-translated lists help nobody.
    """
    table = _table()
    if all(name in table for name in names):
        return [table[name] for name in names]
    return list(names)


def wnids() -> list[str]:
    """The 1000 wnids of ILSVRC 2012 in the label order of tfds and of everyone's weights (sorted)."""
    return list(_table())


@functools.cache
def _table() -> dict[str, str]:
    text = importlib.resources.files("imagenet_jax.data").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in text.splitlines())
