"""WordNet's hierarchy above ImageNet's classes: what is a kind of what, by wnid (two classes are called crane, two maillot).

It is a graph without cycles and no tree: 75 of its 1,860 synsets have several parents, so categories are sets of classes, never
counted along paths. The table (`imagenet_hierarchy.tsv`: wnid, parents, words) is derived from WordNet 3.0 by
`make_hierarchy.py`; WordNet's licence lies beside it. `wordnet.py` makes the hierarchy of other classes.
"""

import functools
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

TABLE = "imagenet_hierarchy.tsv"


class Synset(NamedTuple):
    """`parents`: wnids, in WordNet's order (hypernyms); `words`: those that mean it, the usual one first."""

    parents: tuple[str, ...]
    words: tuple[str, ...]


class Hierarchy:
    """Questions to a graph of synsets that is closed upwards: every parent is in it too.

    All take and give wnids, and raise KeyError for one that is not in the graph.
    """

    def __init__(self, synsets: Mapping[str, Synset]):
        self.synsets = synsets
        children: dict[str, list[str]] = {wnid: [] for wnid in synsets}
        for wnid, synset in synsets.items():
            for parent in synset.parents:
                children[parent].append(wnid)
        self.children = {wnid: tuple(below) for wnid, below in children.items()}
        self.height = functools.cache(self._height)
        self.ancestors = functools.cache(self._ancestors)

    def path(self, wnid: str) -> list[str]:
        """From the root to `wnid`, along the first parent of each synset."""
        above = self.synsets[wnid].parents
        return [*(self.path(above[0]) if above else ()), wnid]

    def words(self, wnid: str) -> str:
        """The usual word for it."""
        return self.synsets[wnid].words[0]

    def is_a(self, wnid: str, category: str) -> bool:
        """Whether `wnid` is `category` or a kind of it."""
        return category in self.ancestors(wnid)

    def classes_of(self, category: str) -> frozenset[str]:
        """All kinds of `category` that have no kinds themselves; of the 1000 classes of ILSVRC 2012, none is another's kind."""
        return frozenset(w for w, below in self.children.items() if not below and self.is_a(w, category))

    def severity(self, a: str, b: str) -> int:
        """How bad it is to take one for the other: the least height of their common ancestors; 0 where they are the same.

        Bertinetto et al. 2020, "Making Better Mistakes", section 3.1, there on a tree, where the lowest common ancestor is one.
        """
        return 0 if a == b else min(self.height(wnid) for wnid in self.ancestors(a) & self.ancestors(b))

    def nearest_classes(self, classes: Sequence[str]) -> np.ndarray:
        """int32 (classes,): for each of the wnids, the index of the next of them above it, along `path`; -1 where there is none.

        A fifth of ImageNet-21K's classes are kinds of others of its classes.
        """
        index = {wnid: i for i, wnid in enumerate(classes)}
        above = ([index[wnid] for wnid in self.path(own)[:-1] if wnid in index] for own in classes)
        return np.array([found[-1] if found else -1 for found in above], np.int32)

    def _ancestors(self, wnid: str) -> frozenset[str]:
        """`wnid` itself and everything above it, by all paths."""
        return frozenset((wnid,)).union(*(self.ancestors(parent) for parent in self.synsets[wnid].parents))

    def _height(self, wnid: str) -> int:
        """Steps of the longest way down to a class."""
        return max((1 + self.height(child) for child in self.children[wnid]), default=0)


def depths_of(parents: np.ndarray) -> np.ndarray:
    """int (classes,): how many classes lie above each, from `Hierarchy.nearest_classes`."""
    depths, above = np.zeros(len(parents), int), parents
    while (above >= 0).any():
        depths += above >= 0
        above = np.where(above >= 0, parents[above], -1)
    return depths


@functools.cache
def imagenet1k() -> Hierarchy:
    """The 1000 classes of ILSVRC 2012 and everything above them, up to 'entity' (n00001740)."""
    text = importlib.resources.files("imagenet_jax.data.labels").joinpath(TABLE).read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return Hierarchy({wnid: Synset(tuple(parents.split()), tuple(words.split(", "))) for wnid, parents, words in rows})


def lines_of(synsets: Mapping[str, Synset]) -> Iterator[str]:
    """The table's lines, as `imagenet1k` reads them."""
    return (f"{wnid}\t{' '.join(parents)}\t{', '.join(words)}\n" for wnid, (parents, words) in synsets.items())
