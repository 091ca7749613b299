"""The classes that a model knows worst: what it takes their images for, and some of these images as thumbnails."""

import pathlib
from typing import Any

import numpy as np

from imagenet_jax import runtime
from imagenet_jax.evaluator import Counts, Evaluator
from imagenet_jax.metrics import confusion

CLASSES, MISTAKES, EXAMPLES = 10, 3, 3  # how many; of a class: classes that it is taken for, and images


def worst_classes(evaluator: Evaluator, counts: Counts, folder: pathlib.Path) -> list[dict[str, Any]]:
    """[{index, images, f1, taken_for: [{index, images}], examples: [{thumbnail, file_name, taken_for}]}], the lowest F1 first.

    Of the classes that have images. Examples are the first images of the class, in stored order, that were taken for another one,
    with thumbnails in `folder`; there are none where no logits were kept.
    """
    rows = confusion.scores(counts.confusion, evaluator.source.classes)["per_class"]
    wrong = [row for row in rows if row["images"] and row["f1"] < 1]
    found = []
    for row in sorted(wrong, key=lambda row: (row["f1"], -row["images"]))[:CLASSES]:
        index = row["index"]
        others = np.where(np.arange(len(rows)) == index, 0, counts.confusion[index])
        first = np.argsort(-others, kind="stable")[:MISTAKES]
        found.append(
            {
                "index": index,
                "images": row["images"],
                "f1": row["f1"],
                "taken_for": [{"index": int(i), "images": int(others[i])} for i in first if others[i]],
                "examples": [_example(evaluator, int(i), counts, folder) for i in _mistaken(counts, index)[:EXAMPLES]],
            }
        )
    return found


def _mistaken(counts: Counts, index: int) -> np.ndarray:
    """The example ids of a class that were taken for another; empty without logits."""
    return np.flatnonzero((counts.labels == index) & ~counts.correct)


def _example(evaluator: Evaluator, example: int, counts: Counts, folder: pathlib.Path) -> dict[str, Any]:
    record = evaluator.source.read(example)
    path = folder / f"{example:08d}.jpg"
    if runtime.is_main_process():
        evaluator.write_thumbnail(record.image, path)
    taken_for = int(np.argmax(counts.logits[example]))
    return {"thumbnail": f"{folder.name}/{path.name}", "file_name": record.name, "taken_for": taken_for}
