"""Read the files of a run into memory, strict where they are written whole, lenient where a run may have been killed.

Invariant: what leaves this file has every key that the rest of the report uses. `config.json` without one is an
error; a line of metrics.jsonl or an evaluation without one is left out, and a note on the page says so.
"""

import dataclasses
import datetime
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagenet_jax.errors import UserError

CONTENTS = "config.json, metrics.jsonl, checkpoints, and eval/*.json once it has been evaluated"
WEIGHTS = ("raw", "ema")
REQUIRED = {  # of config.json: key -> keys below it
    "config": (),
    "dataset": ("name", "version", "train_split", "train_images", "eval_split", "eval_images", "classes", "fingerprint"),
    "preprocessing": ("image_size", "decoder"),
    "model": ("name", "parameters", "flops_per_image"),
    "steps": ("total", "per_epoch"),
    "versions": (),
    "devices": ("platform", "kind", "count", "processes"),
}
TRAIN_COLUMNS = ("step", "epoch", "loss", "top1", "learning_rate", "images_per_second", "data_wait", "time")
EVAL_COLUMNS = ("step", "epoch", "images", "loss", "top1", "top5", "time")
EVALUATION_KEYS = {"dataset", "split", "step", "images", "decoder", "preprocessing", "classes", "raw", "samples"}
RESULT_KEYS = {"loss", "top1", "top5", "macro", "per_class"}

Columns = dict[str, np.ndarray]  # name -> (records,) float64; null becomes nan


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One eval/<dataset>-<split>.json, and the confusion matrices beside it.

    `confusion` maps "raw" and "ema" to (classes, classes) int64, rows true, columns predicted; either may be absent.
    """

    path: pathlib.Path
    content: dict[str, Any]
    confusion: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Run:
    """What the files of one run say. `evals` holds the records of the run's own evaluation split, by weights."""

    path: pathlib.Path
    name: str
    info: dict[str, Any]  # config.json
    train: Columns
    evals: dict[str, Columns]
    evaluations: list[Evaluation]
    notes: list[str]  # what could not be read, in sentences


def read_runs(paths: Sequence[pathlib.Path]) -> list[Run]:
    """Read each directory once, in the order given. Raises `UserError` for one that is not the directory of a run."""
    return [read_run(path, label) for path, label in labelled(paths)]


def labelled(paths: Sequence[pathlib.Path]) -> list[tuple[pathlib.Path, str]]:
    """Each directory once, in the order given, with what the page calls it. Raises `UserError` where there is none."""
    unique = list({path.resolve(): path for path in reversed(paths)}.values())[::-1]
    if not unique:
        raise UserError("No run given. Name at least one run directory, such as runs/r50.")
    names = [path.resolve().name for path in unique]
    return [(path, str(path) if names.count(name) > 1 else name) for path, name in zip(unique, names, strict=True)]


def read_run(path: pathlib.Path, name: str) -> Run:
    """Read one run directory; `name` is what the page calls it. Raises `UserError` as `read_runs`."""
    info = _read_info(path)
    notes: list[str] = []
    train, evals = _read_metrics(path / "metrics.jsonl", info["dataset"]["eval_split"], notes)
    # A data set may be called NAME/CONFIG, and its file lie a folder deeper.
    evaluations = [read_evaluation(file, path, notes) for file in sorted((path / "eval").rglob("*.json"))]
    return Run(path, name, info, train, evals, [e for e in evaluations if e], notes)


def _read_info(path: pathlib.Path) -> dict[str, Any]:
    file = path / "config.json"
    if not path.is_dir() or not file.is_file():
        cause = "it has no config.json" if path.is_dir() else "there is no such directory"
        raise UserError(
            f"{path} is not the directory of a run: {cause}. A run directory is what "
            f"`python -m imagenet_jax.main --workdir=DIR` writes; it contains {CONTENTS}."
        )
    try:
        info = json.loads(file.read_bytes())
        lacking = [key for key in (*REQUIRED, "format", "started", "git_commit") if key not in info]
        lacking += [f"{key}.{k}" for key, below in REQUIRED.items() if key in info for k in below if k not in info[key]]
        if lacking:
            raise ValueError("it lacks " + ", ".join(sorted(lacking)))
        datetime.datetime.fromisoformat(info["started"])
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{file} cannot be read: {error}. It is the file that makes {path} a run directory.") from error
    if info["format"] != 1:
        raise UserError(f"{file} has format {info['format']!r}, and this version reads 1. Use the version that wrote it.")
    return info


def _read_metrics(file: pathlib.Path, split: str, notes: list[str]) -> tuple[Columns, dict[str, Columns]]:
    train: list[list[float]] = []
    evals: dict[str, list[list[float]]] = {weights: [] for weights in WEIGHTS}
    lines = file.read_bytes().splitlines() if file.is_file() else []
    unread, replaced = [], 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if record["kind"] == "train":
                train.append(_row(record, TRAIN_COLUMNS))
            elif record["kind"] == "eval" and record["split"] == split:
                evals[record["weights"]].append(_row(record, EVAL_COLUMNS))
            elif record["kind"] == "substitutes":
                replaced += len(record["due"])
        except (ValueError, KeyError, TypeError):
            unread.append(number)
    if replaced:
        notes.append(f"{replaced:,} training images did not decode; others took their place ({file.name} names them).")
    if unread:
        cut = unread == [len(lines)]
        which = "Its last line is cut short" if cut else f"Lines {', '.join(map(str, unread[:5]))} cannot be read"
        more = f" (and {len(unread) - 5} more)" if len(unread) > 5 else ""
        notes.append(f"{file.name}: {which}{more} and left out.")
    return _columns(train, TRAIN_COLUMNS), {weights: _columns(rows, EVAL_COLUMNS) for weights, rows in evals.items()}


def _row(record: dict[str, Any], names: tuple[str, ...]) -> list[float]:
    return [float("nan") if record[name] is None else float(record[name]) for name in names]


def _columns(rows: list[list[float]], names: tuple[str, ...]) -> Columns:
    table = np.asarray(rows, np.float64).reshape(len(rows), len(names))
    return {name: table[:, i] for i, name in enumerate(names)}


def read_evaluation(file: pathlib.Path, run: pathlib.Path, notes: list[str]) -> Evaluation | None:
    """One evaluation below the directory `run`; None, and a note, where it cannot be read."""
    where, matrices = (f.relative_to(run).as_posix() for f in (file, file.with_suffix(".npz")))
    try:
        content = json.loads(file.read_bytes())
        lacking = EVALUATION_KEYS - set(content)
        for weights in WEIGHTS:
            content.setdefault(weights, None)
            lacking |= {f"{weights}.{key}" for key in RESULT_KEYS - set(content[weights] or RESULT_KEYS)}
        if lacking or not content["raw"]:
            raise ValueError(f"it lacks {', '.join(sorted(lacking)) or 'raw'}")
    except (ValueError, TypeError, AttributeError, OSError) as error:
        notes.append(f"{where} cannot be read and is left out: {error}.")
        return None
    return Evaluation(file, content, _read_confusion(run / matrices, len(content["classes"]), notes))


def _read_confusion(file: pathlib.Path, classes: int, notes: list[str]) -> dict[str, np.ndarray]:
    matrices: dict[str, np.ndarray] = {}
    if not file.is_file():
        return matrices
    try:
        with np.load(file, allow_pickle=False) as arrays:
            for weights in WEIGHTS:
                if f"confusion_{weights}" in arrays:
                    matrices[weights] = arrays[f"confusion_{weights}"]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        notes.append(f"eval/{file.name} cannot be read and is left out: {error}.")
        return {}
    wrong = sorted({str(m.shape) for m in matrices.values() if m.shape != (classes, classes)})
    if wrong:
        notes.append(f"eval/{file.name} is left out: a matrix of shape {', '.join(wrong)} for {classes} classes.")
        return {}
    return matrices
