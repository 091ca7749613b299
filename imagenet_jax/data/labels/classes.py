"""Readable names for ImageNet's classes.

The table (`imagenet_classes.tsv`: wnid, name, in the official label order) is derived from WordNet 3.0 by
`make_imagenet_classes.py`; WordNet's licence lies beside it. No two of its names are the same.
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


def wnids_of(names: Sequence[str]) -> list[str] | None:
    """The wnids of readable names (or of wnids) of ILSVRC 2012, None where any of `names` is none of them."""
    known = {readable: wnid for wnid, readable in _table().items()} | {wnid: wnid for wnid in _table()}
    return [known[name] for name in names] if all(name in known for name in names) else None


@functools.cache
def _table() -> dict[str, str]:
    text = importlib.resources.files("imagenet_jax.data.labels").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in text.splitlines())
