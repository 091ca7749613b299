"""What a confusion matrix and ranked predictions say in terms of WordNet: scores of categories, and how bad mistakes are.

A category is any synset with two classes or more among those of the data set that are it or a kind of it; whichever of them an
image is taken for, the category is right. Classes are wnids throughout, in the order of the matrix. Numpy only.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imagenet_jax.data import wordnet
from imagenet_jax.data.hierarchy import Hierarchy
from imagenet_jax.errors import UserError


def describe(confusions: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any] | None:
    """What a result says of the hierarchy: `scores` of each confusion matrix, by its name, and "wnids", those of the classes.

    None where the classes' names are not ImageNet's; {"absent": why} where these need a WordNet that is not here.
    """
    wnids = wordnet.wnids_of(names)
    if wnids is None:
        return None
    try:
        tree = wordnet.hierarchy_of(wnids)
    except UserError as error:  # not worth losing an evaluation for
        return {"absent": str(error)}
    return {"wnids": wnids, **{name: scores(confusion, wnids, tree) for name, confusion in confusions.items()}}


def scores(confusion: np.ndarray, wnids: Sequence[str], tree: Hierarchy) -> dict[str, Any]:
    """{"mistake_severity", "distance_at_1", "categories"} of an int (classes, classes) matrix, rows true.

    "mistake_severity" is the mean severity (`Hierarchy.severity`) of the images that were taken for another class, None without
    any; "distance_at_1" that of all images (Bertinetto et al. 2020, arXiv 1912.09393, section 4.1).
    """
    pairs = [(wnids[i], wnids[j], int(confusion[i, j])) for i, j in np.argwhere(confusion) if i != j]
    mistakes = sum(n for _, _, n in pairs)
    total = sum(n * tree.severity(a, b) for a, b, n in pairs)
    return {
        "mistake_severity": total / mistakes if mistakes else None,
        "distance_at_1": total / max(1, int(confusion.sum())),
        "categories": categories(confusion, wnids, tree),
    }


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


def expected_severity(probabilities: np.ndarray, table: np.ndarray) -> np.ndarray:
    """float (n, classes): how bad it is on average to answer each class, where the truth has these `probabilities` (n, classes).

    The class with the least is the decision by Bayes' rule, which needs no training (Karthik et al. 2021, arXiv 2104.00795,
    equation 1); argsort ranks all of them.
    """
    return probabilities @ table.astype(probabilities.dtype)
