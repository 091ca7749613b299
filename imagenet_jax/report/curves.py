"""Which curves a page shows, what each says in words, and the sentence that stands where there is nothing to draw.

One run: a colour for each kind of series. Several runs: a colour and a marker for each run, as everywhere on the page.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagenet_jax.report import plots
from imagenet_jax.report.read import Run
from imagenet_jax.report.tables import number, percent

SMOOTH_FROM = 100  # records; from here on a mean runs over them
TOP5_FROM = 21  # classes; below, top-5 says little
LOG_FROM = 100  # ratio of the largest loss to the smallest
WEIGHT_NAMES = {"raw": "raw weights", "ema": "averaged weights"}


@dataclasses.dataclass(frozen=True)
class Curve:
    """A picture with its title, caption and alternative text; or, `picture` being None, a sentence in `caption`."""

    title: str
    caption: str
    alt: str = ""
    picture: plots.Picture | None = None


def draw_curves(runs: Sequence[Run], folder: pathlib.Path) -> list[Curve]:
    """Draw loss, accuracy, learning rate and throughput of the runs over one another into `folder`."""
    wide = max(len(run.info["dataset"]["classes"]) for run in runs) >= TOP5_FROM
    absent = _absent(runs)
    if len(runs) == 1:
        records = f"{_window(runs, 'loss')} {absent}".strip()
        loss = [*_training(runs, "loss"), *_evaluation(runs, "loss")]
        top1 = [*_training(runs, "top1"), *_evaluation(runs, "top1")]
        curves = [
            _draw("Loss", plots.Panel("loss", loss), folder, "loss", records),
            _draw("Top-1 accuracy", plots.Panel("top-1", top1, share=True), folder, "top1", records),
        ]
    else:
        train, evals = plots.Panel("loss", _training(runs, "loss")), plots.Panel("loss", _evaluation(runs, "loss"))
        top1 = plots.Panel("top-1", _evaluation(runs, "top1"), share=True)
        curves = [
            _draw("Training loss", train, folder, "train-loss", _window(runs, "loss")),
            _draw("Evaluation loss", evals, folder, "eval-loss", absent),
            _draw("Top-1 accuracy, evaluation", top1, folder, "top1", absent),
        ]
    if wide:
        top5 = plots.Panel("top-5", _evaluation(runs, "top5"), share=True)
        curves.append(_draw("Top-5 accuracy, evaluation", top5, folder, "top5", absent))
    rates = plots.Panel("learning rate", _training(runs, "learning_rate", as_logged=True), from_zero=True)
    curves.append(_draw("Learning rate", rates, folder, "learning-rate", ""))
    speed = plots.Panel("images per second", _training(runs, "images_per_second"), from_zero=True)
    wait = plots.Panel("waiting", _training(runs, "data_wait"), share=True)
    note = _window(runs, "images_per_second")
    if len(curves) % 2:  # the page has two columns: one picture of two panels, or two pictures, whichever fills them
        said = f"Below: share of the time spent waiting for data. {note}".strip()
        return [*curves, _draw("Throughput", speed, folder, "throughput", said, wait)]
    waiting = dataclasses.replace(wait, ylabel="share of the time")
    return [
        *curves,
        _draw("Throughput", speed, folder, "throughput", note),
        _draw("Waiting for data", waiting, folder, "waiting", note),
    ]


def draw_reliability(calibration: dict[str, Any], folder: pathlib.Path, stem: str) -> Curve:
    """The reliability diagram of an evaluation's calibration, and of its held-out half with the temperature, if one was fitted."""
    bins = {"all images": calibration["reliability"]}
    if t := calibration["temperature"]:
        bins[f"half of them, T = {number(t['value'], 3)}"] = t["after"]["reliability"]
    line = np.array([0.0, 1.0])
    series = [plots.Series("perfect", line, line)]
    for i, (label, found) in enumerate(bins.items()):
        x, y = (np.array([b[key] for b in found]) for key in ("confidence", "accuracy"))
        series.append(plots.Series(label, x, y, i, "dashed" if i else "marked"))
    picture = plots.save_curves([plots.Panel("accuracy", series, share=True)], "confidence", folder, stem)
    caption = "A point for each bin with an image. Above the grey line it is right more often than it says, below less often."
    parts = [f"{percent(b['confidence'], 0)} sure, {percent(b['accuracy'], 0)} right" for b in calibration["reliability"]]
    return Curve("Reliability", caption, f"Accuracy by confidence: {'; '.join(parts)}.", picture)


def smooth(y: np.ndarray) -> tuple[np.ndarray, int]:
    """Centred running mean of (n,) values over an odd window of about n / 50 that ignores nan and shrinks at the ends.

    Returns the means and the window; fewer than SMOOTH_FROM values are returned as they are, with window 1.
    """
    if len(y) < SMOOTH_FROM:
        return y, 1
    half = max(1, len(y) // 100)
    finite = np.isfinite(y)
    index = np.arange(len(y))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(y))
    totals = np.concatenate([[0.0], np.cumsum(np.where(finite, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    n = counts[high] - counts[low]
    return np.where(n > 0, (totals[high] - totals[low]) / np.maximum(n, 1), np.nan), 2 * half + 1


def _training(runs: Sequence[Run], key: str, *, as_logged: bool = False) -> list[plots.Series]:
    series = []
    for i, run in enumerate(runs):
        x, y = run.train["epoch"], run.train[key]
        means, window = (y, 1) if as_logged else smooth(y)
        if not np.isfinite(y).any():
            continue
        colour = None if len(runs) == 1 and key in ("loss", "top1") else i
        if window > 1 and len(runs) == 1:
            series.append(plots.Series("", x, y, colour, "cloud"))
        label, style = ("training", "line") if len(runs) == 1 else (run.name, "marked")
        series.append(plots.Series(label, x, means, colour, style))
    return series


def _evaluation(runs: Sequence[Run], key: str) -> list[plots.Series]:
    series = []
    for i, run in enumerate(runs):
        for j, weights in enumerate(run.evals):
            columns = run.evals[weights]
            if not np.isfinite(columns[key]).any():
                continue
            label = f"evaluation, {WEIGHT_NAMES[weights]}" if len(runs) == 1 else run.name
            label = f"{run.name}, averaged" if len(runs) > 1 and weights == "ema" else label
            style = "dashed" if weights == "ema" else "marked"
            series.append(plots.Series(label, columns["epoch"], columns[key], j if len(runs) == 1 else i, style))
    return series


def _window(runs: Sequence[Run], key: str) -> str:
    windows = sorted({smooth(run.train[key])[1] for run in runs} - {1})
    if not windows:
        return ""
    faint = "; faint: every record." if len(runs) == 1 else "."
    return f"Training lines: mean over {' or '.join(map(str, windows))} log records{faint}"


def _absent(runs: Sequence[Run]) -> str:
    """Say which runs have no evaluation, and which have none of averaged weights."""
    bare = [run.name for run in runs if not len(run.evals["raw"]["step"])]
    raw_only = [run.name for run in runs if run.name not in bare and not len(run.evals["ema"]["step"])]
    of = (lambda names: "") if len(runs) == 1 else (lambda names: f" of {', '.join(names)}")
    sentences = []
    if bare:
        sentences.append(f"No evaluation{of(bare)} during training has been recorded.")
    if raw_only:
        sentences.append(f"No averaged weights{of(raw_only)} were evaluated.")
    return " ".join(sentences)


def _draw(title: str, panel: plots.Panel, folder: pathlib.Path, stem: str, note: str, *below: plots.Panel) -> Curve:
    points = {s.label: np.isfinite(s.y).sum() for s in panel.series if s.label}
    if max(points.values(), default=0) == 0:
        return Curve(title, f"Nothing to draw: no record of it so far. {note}".strip())
    said = percent if panel.share else number
    if max(points.values()) == 1:
        only = [(s.label, s.x[k], s.y[k]) for s in panel.series if s.label for k in np.flatnonzero(np.isfinite(s.y))]
        text = "; ".join(f"{label}: {said(y)} at epoch {number(x)}" for label, x, y in only)
        return Curve(title, f"Only one record so far, which makes no curve: {text}. {note}".strip())
    if panel.ylabel == "loss":
        values = np.concatenate([s.y[np.isfinite(s.y)] for s in panel.series])
        log = values.min() > 0 and values.max() > LOG_FROM * values.min()
        panel = dataclasses.replace(panel, log=bool(log), ylabel="loss (log scale)" if log else "loss")
    picture = plots.save_curves([panel, *(p for p in below if p.series)], "epoch", folder, stem)
    parts = []
    for s in panel.series:
        known = np.flatnonzero(np.isfinite(s.y))
        if s.label and len(known):
            first, last, end = float(s.y[known[0]]), float(s.y[known[-1]]), float(s.x[known[-1]])
            parts.append(f"{s.label} from {said(first)} to {said(last)} at epoch {number(end)}")
    return Curve(title, note, f"{title} over epochs: {'; '.join(parts)}.", picture)
