"""Search by word: what a word may mean among a model's classes, and how probable a picture of it is.

A word goes through WordNet where the classes are ImageNet's: each synset above or at the classes that the word stands for is a
sense, and a picture's score is the probability of all classes below it (of the most probable ones, which the index keeps). Other
classes are found by their names. Words that no class is a kind of find nothing, which is said: there is no text model here.
"""

import difflib
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.data.labels import hierarchy
from imagenet_jax.data.labels.classes import wnids_of
from imagenet_jax.errors import UserError
from imagenet_jax.retrieval.exact import Found, merged, nothing
from imagenet_jax.retrieval.store import Predictions

# WordNet's own rules for the endings of nouns (morphy(7WN)).
ENDINGS = (
    ("", ""),
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)


class Sense(NamedTuple):
    """One meaning. `key`: the wnid, of classes that WordNet does not know the name; `path`: from the general to this, in words."""

    key: str
    path: tuple[str, ...]
    classes: tuple[int, ...]  # labels of the model's classes that are one


def senses(word: str, names: Sequence[str]) -> list[Sense]:
    """What `word` may mean, the meaning with most classes first. Raises UserError, with near words, where nothing."""
    wanted = {word.casefold().strip().removesuffix(end) + stem for end, stem in ENDINGS if word.casefold().strip().endswith(end)}
    wnids = wnids_of(names)
    if wnids is None:
        found = [Sense(name, (name,), (i,)) for i, name in enumerate(names) if name.casefold() in wanted]
        known: Iterable[str] = (name.casefold() for name in names)
    else:
        table = _synsets_of_words()
        keys = {key for form in wanted for key in table.get(form, ())}
        found = sorted((sense_of(key, names) for key in keys), key=lambda s: (-len(s.classes), s.key))
        known = table
    if not found:
        near = difflib.get_close_matches(word.casefold(), known, n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Try a more general word, such as one of its kind."
        raise UserError(f"No class of this model is a kind of {word!r}. {hint}")
    return found


def sense_of(key: str, names: Sequence[str]) -> Sense:
    """The sense of a key. Raises UserError where it is none."""
    wnids, tree = wnids_of(names), hierarchy.imagenet1k()
    if wnids is None and key in names:
        return Sense(key, (key,), (names.index(key),))
    if wnids is None or key not in tree.synsets:
        raise UserError(f"{key!r} is no category of this model's classes.")
    below = tuple(i for i, wnid in enumerate(wnids) if tree.is_a(wnid, key))
    return Sense(key, tuple(tree.words(above) for above in tree.path(key)), below)


def paths_of(names: Sequence[str]) -> list[tuple[str, ...]]:
    """For each class, from the general to itself, in words; of classes that are not ImageNet's, the name alone."""
    wnids, tree = wnids_of(names), hierarchy.imagenet1k()
    return [(name,) for name in names] if wnids is None else [tuple(map(tree.words, tree.path(wnid))) for wnid in wnids]


def kinds_of(names: Sequence[str]) -> list[list[str]]:
    """For each class, all that it is a kind of, by every path, in words, itself included; sorted."""
    wnids, tree = wnids_of(names), hierarchy.imagenet1k()
    return (
        [[name] for name in names] if wnids is None else [sorted({tree.words(w) for w in tree.ancestors(wnid)}) for wnid in wnids]
    )


def mass(predictions: Predictions, classes: Iterable[int], count: int) -> np.ndarray:
    """The probability of any of `classes`, of `count`, for each image: float32 (n,)."""
    member = np.zeros(count, np.float32)
    member[list(classes)] = 1
    return np.einsum("nk,nk->n", predictions.probabilities, member[predictions.classes])


def most_probable(shards: Iterable[tuple[int, Predictions]], classes: Iterable[int], count: int, k: int) -> Found:
    """The `k` images with the largest `mass`, as one query; images without any are not among them."""
    found, classes = nothing(1, k), tuple(classes)
    for first, predictions in shards:
        scores = mass(predictions, classes, count)
        rows = np.flatnonzero(scores)
        found = merged([found, Found(scores[None, rows], first + rows[None])], k)
    return found


def facets(tops: Sequence[int], names: Sequence[str], limit: int = 12) -> list[dict[str, Any]]:
    """Categories that some, not all, of the images fall into by their most probable classes `tops`: {key, path, count}.

    Of categories that hold the same images, the most special; those with most images first.
    """
    wnids, tree = wnids_of(names), hierarchy.imagenet1k()
    members: dict[str, set[int]] = {}
    for image, label in enumerate(tops):
        for key in [names[label]] if wnids is None else tree.ancestors(wnids[label]):
            members.setdefault(key, set()).add(image)
    special: dict[frozenset[int], str] = {}
    for key in sorted(members, key=lambda key: (len(tree.path(key)) if wnids else 0, key)):
        special[frozenset(members[key])] = key  # deeper ones come later
    chosen = sorted((key for images, key in special.items() if 1 < len(images) < len(tops)), key=lambda k: (-len(members[k]), k))
    return [{"key": key, "path": list(sense_of(key, names).path), "count": len(members[key])} for key in chosen[:limit]]


@functools.cache
def _synsets_of_words() -> dict[str, list[str]]:
    """Word, in small letters -> wnids."""
    table: dict[str, list[str]] = {}
    for wnid, synset in hierarchy.imagenet1k().synsets.items():
        for word in synset.words:
            table.setdefault(word.casefold(), []).append(wnid)
    return table
