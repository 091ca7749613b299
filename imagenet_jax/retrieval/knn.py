"""Classification by nearest neighbours in an index, as features are judged: Wu et al. 2018, Caron et al. 2021."""

from collections.abc import Sequence

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.retrieval.exact import Found, nearest
from imagenet_jax.retrieval.store import Index

QUERIES = 1 << 10  # rows at a time
TEMPERATURE = 0.07


def evaluate(train: Index, counted: Index, ks: Sequence[int]) -> dict[int, dict[str, float]]:
    """k -> {"top1", "top5", "correct", "images"} of the pictures of `counted` by the labels of their `k` nearest in `train`.

    Each neighbour votes with exp(cosine / 0.07) (Wu et al. 2018, arXiv 1805.01978, section 3.4). Raises UserError where labels are
    missing or the two were made by different models or have different classes.
    """
    train.refuse_unlike(counted.manifest, str(counted.folder))
    classes, labels, truth = train.manifest["data"]["classes"], train.labels(), counted.labels()
    if classes != counted.manifest["data"]["classes"] or not classes:
        raise UserError(f"{train.folder} and {counted.folder} need labels of the same classes: embed --dataset, not --folder.")
    if min(labels.min(initial=0), truth.min(initial=0)) < 0 or not len(train) or not len(counted):
        raise UserError(
            f"{train.folder} or {counted.folder} has pictures without a label, or none at all. Choose a split with labels."
        )
    top1, top5 = dict.fromkeys(ks, 0), dict.fromkeys(ks, 0)
    for first, queries in counted.blocks(QUERIES):
        found = nearest(train.blocks(), queries, min(max(ks), len(train)))
        for k in ks:
            best = votes(found, labels, k, len(classes))
            right = best == truth[first : first + len(queries), None]
            top1[k] += int(right[:, 0].sum())
            top5[k] += int(right[:, :5].any(1).sum())
    n = len(counted)
    return {k: {"top1": top1[k] / n, "top5": top5[k] / n, "correct": top1[k], "images": n} for k in ks}


def votes(found: Found, labels: np.ndarray, k: int, classes: int) -> np.ndarray:
    """The (at most) five classes with most votes of each query's `k` nearest, most first, int (queries, 5)."""
    scores, rows = found.scores[:, :k], found.rows[:, :k]
    tally = np.zeros((len(scores), classes), np.float32)
    queries = np.broadcast_to(np.arange(len(scores))[:, None], rows.shape)
    np.add.at(tally, (queries, labels[rows]), np.exp((scores - scores[:, :1]) / TEMPERATURE))
    return np.argsort(-tally, axis=1, kind="stable")[:, :5]
