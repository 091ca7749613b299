"""The confusion matrix, counted on the device, and what follows from it, on the host."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def add_to_confusion(confusion: jax.Array, predicted: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """`confusion`, int32 (classes, classes), rows true, columns predicted, plus the examples whose `mask` is True."""
    return confusion.at[labels, predicted].add(mask.astype(confusion.dtype))


def scores(confusion: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """{"macro", "weighted", "per_class": [{index, name, images, precision, recall, f1}]} from an int (classes, classes) matrix.

    A ratio without a denominator is 0 (scikit-learn's zero_division=0). Macro averages run over the classes that occur as label
    or prediction, scikit-learn's default set of labels, so that absent classes of a partial data set do not count; weighted ones
    count each class as often as it is a label.
    """
    hits = np.diag(confusion).astype(np.float64)
    true, predicted = confusion.sum(1), confusion.sum(0)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(true, 1)
    f1 = 2 * hits / np.maximum(true + predicted, 1)
    seen = (true + predicted) > 0

    def averaged(weights: np.ndarray) -> dict[str, float]:
        total = max(weights.sum(), 1)
        ratios = {"precision": precision, "recall": recall, "f1": f1}
        return {name: float(values @ weights / total) for name, values in ratios.items()}

    return {
        "macro": {"classes": int(seen.sum()), **averaged(seen)},
        "weighted": averaged(true),
        "per_class": [
            {
                "index": i,
                "name": name,
                "images": int(true[i]),
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
            }
            for i, name in enumerate(names)
        ],
    }
