"""Rows of suites and evaluations, of runs and of folders of weights, and the differences between two models on the same images.

An evaluation in eval/ is a row too, unless a suite counted the same split. What cannot be read becomes a note on the page.
"""

import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.metrics import bootstrap
from imagenet_jax.report.read import Evaluation, read_evaluation

ROW = {
    "set", "dataset", "split", "labels", "fingerprint", "image_size", "crop_ratio", "flip", "weights", "classes", "images", "top1",
    "top1_interval",
}  # fmt: skip


class Row(NamedTuple):
    """One line: its `content` has the keys of `ROW` and whether the view is the model's own; `values` are (n,) by example id."""

    content: dict[str, Any]
    values: np.ndarray | None  # float, their mean is the row's top1; NaN where an image does not count


class Side(NamedTuple):
    """What is known of one model."""

    name: str
    model: dict[str, Any]  # its name and its number of parameters; empty where weights.json does not say
    rows: list[Row]
    evaluations: list[Evaluation]
    notes: list[str]


def read_weights(folder: pathlib.Path, name: str) -> Side:
    """A folder of weights, of `convert`, that `evaluate` counted. Raises UserError where it was not."""
    notes: list[str] = []
    found = [read_evaluation(file, folder, notes) for file in sorted((folder / "eval").rglob("*.json"))]
    evaluations = [e for e in found if e]
    rows = read_rows(folder, evaluations, notes)
    if not rows:
        raise UserError(f"{folder} was not evaluated: python -m imagenet_jax.evaluate --weights={folder} --dataset=NAME")
    return Side(name, _model(folder / "weights.json"), rows, evaluations, notes)


def _model(file: pathlib.Path) -> dict[str, Any]:
    try:
        match json.loads(file.read_bytes()):
            case {"model": {"name": str() as name, "parameters": int() as parameters}}:
                return {"name": name, "parameters": parameters}
    except (ValueError, OSError):
        pass  # the page shows what was counted; `evaluate` has read the model
    return {}


def read_rows(folder: pathlib.Path, evaluations: Sequence[Evaluation], notes: list[str]) -> list[Row]:
    """All rows of a folder, suites first; what cannot be read is left out and added to `notes`."""
    rows = [row for file in sorted((folder / "suite").glob("*.json")) for row in _suite(file, notes)]
    counted = {(row.content["dataset"], row.content["split"]) for row in rows}
    for evaluation in evaluations:
        if (evaluation.content["dataset"], evaluation.content["split"]) not in counted:
            rows += _evaluation(evaluation, notes)
    return rows


def _suite(file: pathlib.Path, notes: list[str]) -> list[Row]:
    try:
        content = json.loads(file.read_bytes())
        own = content["own_view"]
        rows = [row | {"own": all(row[key] == own[key] for key in ("image_size", "flip"))} for row in content["rows"]]
        if lacking := sorted({key for row in rows for key in ROW - set(row)}):
            raise ValueError(f"a row lacks {', '.join(lacking)}")
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        notes.append(f"suite/{file.name} cannot be read and is left out: {error}.")
        return []
    arrays = _arrays(file.with_suffix(".npz"), notes)
    return [Row(row, arrays.get(f"values_{i}")) for i, row in enumerate(rows)]


def _evaluation(evaluation: Evaluation, notes: list[str]) -> list[Row]:
    c, arrays = evaluation.content, _arrays(evaluation.path.with_suffix(".npz"), notes)
    shown = c["preprocessing"]
    same = {
        "set": f"{c['dataset']} {c['split']}", "dataset": c["dataset"], "split": c["split"], "labels": "its own", "own": True,
        "fingerprint": c.get("fingerprint"), "image_size": shown["image_size"], "crop_ratio": shown.get("crop_ratio"),
        "flip": shown.get("flip", False), "classes": len(c["classes"]), "images": c["images"], "top1_interval": None,
    }  # fmt: skip
    rows = []
    for weights in ("raw", "ema"):
        if numbers := c[weights]:
            values = arrays.get(f"correct_{weights}", np.zeros(0))
            kept = {key: value for key, value in numbers.items() if key != "per_class"}
            rows.append(Row(same | {"weights": weights} | kept, values.astype(np.float32) if len(values) else None))
    return rows


def _arrays(file: pathlib.Path, notes: list[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if name.startswith(("values_", "correct_"))}
    except FileNotFoundError:
        return {}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        notes.append(f"{file.parent.name}/{file.name} cannot be read: {error}.")
        return {}


def side_by_side(sides: Sequence[Side]) -> list[dict[str, Any]]:
    """A line for each set that several sides counted, each in its own view with its averaged weights, if it keeps an average.

    {"set", "cells"}: a cell is None or {"row", "difference", "interval"}: percentage points to the first side's top-1 and their
    paired bootstrap interval; None both where the images are not known to be the same, and for the first side itself.
    """
    chosen = [_own(side.rows) for side in sides]
    lines = []
    for key in dict.fromkeys(key for rows in chosen for key in rows):
        rows = [of.get(key) for of in chosen]
        if sum(row is not None for row in rows) > 1:
            name = next(row.content["set"] for row in rows if row)
            lines.append({"set": name, "cells": [row and _cell(row, rows[0] if row is not rows[0] else None) for row in rows]})
    return lines


def _own(rows: Sequence[Row]) -> dict[Any, Row]:
    """One row a set: in the model's own view, of its averaged weights where it keeps them."""
    own = sorted((row for row in rows if row.content["own"]), key=lambda row: row.content["weights"] != "raw")
    return {tuple(row.content[key] for key in ("dataset", "split", "labels")): row for row in own}  # the last one counts


def _cell(row: Row, first: Row | None) -> dict[str, Any]:
    cell = {"row": row.content, "difference": None, "interval": None}
    if first and row.values is not None and first.values is not None and row.values.shape == first.values.shape:
        difference = row.values.astype(np.float64) - first.values
        counted = ~np.isnan(difference)
        if row.content["fingerprint"] == first.content["fingerprint"] and counted.any():
            cell |= {"difference": float(difference[counted].mean()), "interval": bootstrap.interval(difference[counted])}
    return cell
