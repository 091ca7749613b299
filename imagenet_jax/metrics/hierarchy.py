"""What a confusion matrix and ranked predictions say in terms of WordNet: scores of categories, and how bad mistakes are.

A category is any synset with two classes or more among those of the data set that are it or a kind of it; whichever of them an
image is taken for, the category is right. Classes are wnids throughout, in the order of the matrix. Numpy only.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from imagenet_jax.data.labels import wordnet
from imagenet_jax.data.labels.hierarchy import Hierarchy, depths_of
from imagenet_jax.errors import UserError

KS = (1, 5, 20)  # most likely classes, as Bertinetto et al. have it


class Counted(Protocol):
    """What is counted of one set of weights: confusion int (classes, classes), rows true; labels int (n,) and logits (n, classes),
    or both empty."""

    @property
    def confusion(self) -> np.ndarray: ...

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def logits(self) -> np.ndarray: ...


def describe(counted: Mapping[str, Counted], names: Sequence[str]) -> dict[str, Any] | None:
    """What a result says of the hierarchy: `scores` of each of `counted`, by its name, and "wnids", those of the classes.

    None where the classes' names are not ImageNet's; {"absent": why} where these need a WordNet that is not here.
    """
    wnids = wordnet.wnids_of(names)
    if wnids is None:
        return None
    try:
        tree = wordnet.hierarchy_of(wnids)
    except UserError as error:  # not worth losing an evaluation for
        return {"absent": str(error)}
    return {"wnids": wnids, **{name: scores(own, wnids, tree) for name, own in counted.items()}}


def scores(counted: Counted, wnids: Sequence[str], tree: Hierarchy) -> dict[str, Any]:
    """{"mistake_severity", "distance_at", "least_severity", "semantic_top1", "categories"} of one set of weights.

    "mistake_severity" is the mean severity (`Hierarchy.severity`) of the images that were taken for another class, None without
    any; "distance_at" {"1": that of all images, "5": ..., "20": ...} as `distance_at` (Bertinetto et al. 2020, arXiv 1912.09393,
    section 4.1). "least_severity" is what answering by `expected_severity` gives instead: {"top1", "mistake_severity"};
    "semantic_top1" (see there) is None where no class is a kind of another. Without logits both are None, and distances are known
    at 1 alone.
    """
    found = _severity(counted.confusion, wnids, tree)
    result: dict[str, Any] = {
        "mistake_severity": found.mistakes,
        "distance_at": {"1": found.all},
        "least_severity": None,
        "semantic_top1": None,
        "categories": categories(counted.confusion, wnids, tree),
    }
    if len(counted.logits):
        table = severities(wnids, tree)
        distances = distance_at(_ranked(counted.logits, min(max(KS), len(wnids))), counted.labels, table)
        result["distance_at"] |= {str(k): float(distances[k - 1]) for k in KS if 1 < k <= len(distances)}
        careful = np.zeros_like(counted.confusion)
        np.add.at(careful, (counted.labels, expected_severity(_softmax(counted.logits), table).argmin(1)), 1)
        top1 = int(careful.trace()) / max(1, int(careful.sum()))
        result["least_severity"] = {"top1": top1, "mistake_severity": _severity(careful, wnids, tree).mistakes}
        parents = tree.nearest_classes(wnids)
        if (parents >= 0).any():
            result["semantic_top1"] = semantic_top1(counted.logits, counted.labels, parents)
    return result


class Severity(NamedTuple):
    """Means over the images that were taken for another class (None without any), and over all."""

    mistakes: float | None
    all: float


def _severity(confusion: np.ndarray, wnids: Sequence[str], tree: Hierarchy) -> Severity:
    pairs = [(wnids[i], wnids[j], int(confusion[i, j])) for i, j in np.argwhere(confusion).tolist() if i != j]
    mistakes, total = sum(n for _, _, n in pairs), sum(n * tree.severity(a, b) for a, b, n in pairs)
    return Severity(total / mistakes if mistakes else None, total / max(1, int(confusion.sum())))


def _ranked(logits: np.ndarray, k: int) -> np.ndarray:
    """The k classes with the largest logits, best first. Sorting these alone takes 0.6 of the time that all 1,000 take."""
    best = np.argpartition(-logits, k - 1, axis=1)[:, :k]
    return np.take_along_axis(best, np.argsort(-np.take_along_axis(logits, best, 1), axis=1), 1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def categories(confusion: np.ndarray, wnids: Sequence[str], tree: Hierarchy) -> list[dict[str, Any]]:
    """{wnid, name, parent, classes, images, precision, recall, f1} of every category, parents before their children.

    "parent" is its first hypernym, itself a category, None at the root. Scores are those of the question "is it one?", asked of
    label and prediction; a ratio without a denominator is 0.
    """
    above = [tree.ancestors(wnid) for wnid in wnids]
    classes = Counter(category for own in above for category in own)
    true, predicted, hits = Counter[str](), Counter[str](), Counter[str]()
    for own, row, column in zip(above, confusion.sum(1).tolist(), confusion.sum(0).tolist(), strict=True):
        true.update(dict.fromkeys(own, row))
        predicted.update(dict.fromkeys(own, column))
    for i, j in np.argwhere(confusion):
        hits.update(dict.fromkeys(above[i] & above[j], int(confusion[i, j])))
    return [
        {
            "wnid": wnid,
            "name": tree.words(wnid),
            "parent": next(iter(tree.synsets[wnid].parents), None),
            "classes": classes[wnid],
            "images": true[wnid],
            "precision": hits[wnid] / max(1, predicted[wnid]),
            "recall": hits[wnid] / max(1, true[wnid]),
            "f1": 2 * hits[wnid] / max(1, true[wnid] + predicted[wnid]),
        }
        for wnid in sorted(classes, key=lambda w: (len(tree.path(w)), w))
        if classes[wnid] > 1
    ]


def severities(wnids: Sequence[str], tree: Hierarchy) -> np.ndarray:
    """uint8 (classes, classes): `tree.severity` of every pair. 477 MB for ImageNet-21K."""
    members: dict[str, list[int]] = {}
    for i, wnid in enumerate(wnids):
        for category in tree.ancestors(wnid):
            members.setdefault(category, []).append(i)
    table = np.zeros((len(wnids), len(wnids)), np.uint8)
    for category in sorted(members, key=tree.height, reverse=True):  # lower ones write over higher ones
        table[np.ix_(members[category], members[category])] = tree.height(category)
    np.fill_diagonal(table, 0)
    return table


def distance_at(ranked: np.ndarray, labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """float64 (k,): hierarchical distance at 1 .. k, of the k most likely classes int (n, k), best first, of images labelled (n,).

    The mean severity between the label and each of them, over the first of them and over all images (Bertinetto et al. 2020,
    section 4.1). `table` is that of `severities`.
    """
    each = table[labels[:, None], ranked].mean(0, dtype=np.float64)
    return np.cumsum(each) / np.arange(1, len(each) + 1)


def semantic_top1(logits: np.ndarray, labels: np.ndarray, parents: np.ndarray) -> float:
    """The share of right answers among all that a semantic softmax is asked for: one for each depth, down to the label's.

    Which class at that depth has the largest logit (n, classes)? Labels are int (n,), `parents` as `Hierarchy.nearest_classes`. A
    depth with one class is not asked for (Ridnik et al. 2021, arXiv 2104.10972, section 3.3.3; src_files/semantic/metrics.py).
    """
    depths, wanted, right, asked = depths_of(parents), labels, 0, 0
    for depth in range(depths.max(), -1, -1):
        (group,) = np.nonzero(depths == depth)
        (here,) = np.nonzero(depths[wanted] == depth)
        if len(group) > 1:
            right += int(np.sum(group[logits[np.ix_(here, group)].argmax(1)] == wanted[here]))
            asked += len(here)
        wanted = np.where(depths[wanted] == depth, parents[wanted], wanted)
    return right / max(1, asked)


def expected_severity(probabilities: np.ndarray, table: np.ndarray) -> np.ndarray:
    """float (n, classes): how bad it is on average to answer each class, where the truth has these `probabilities` (n, classes).

    The class with the least is the decision by Bayes' rule, which needs no training (Karthik et al. 2021, arXiv 2104.00795,
    equation 1); argsort ranks all of them.
    """
    return probabilities @ table.astype(probabilities.dtype)
