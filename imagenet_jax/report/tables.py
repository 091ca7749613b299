"""Numbers of runs as rows of text: results, classes, confusions, samples, settings, and how runs differ.

Everything a reader compares is formatted here, one way each: fractions as percent, counts with commas, a dash for
what is not known.
"""

import dataclasses
import datetime
import json
import math
import pathlib
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagenet_jax.report.read import WEIGHTS, Evaluation, Run

DASH = "–"  # noqa: RUF001
SPACE = "\N{NO-BREAK SPACE}"
NAMES = {"raw": "raw", "ema": "averaged"}


@dataclasses.dataclass(frozen=True)
class Result:
    """One line of the results table. `macro_f1` is known to `evaluate` only, not to evaluations during training."""

    dataset: str
    split: str
    weights: str
    step: int
    images: int
    loss: float
    top1: float
    top5: float
    macro_f1: float


def percent(share: float | None, digits: int = 2) -> str:
    """0.97222 -> '97.22 %', joined by a no-break space."""
    return DASH if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f}{SPACE}%"


def number(value: float | None, digits: int = 4) -> str:
    """A measured number to `digits` significant digits: 0.10234 -> '0.1023', 1250.9 -> '1,251'."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def fixed(value: float | None, decimals: int = 3) -> str:
    """A number of a column, whose decimal points stand below one another: 0.3 -> '0.300'."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.{decimals}f}"


def count(value: float | None) -> str:
    """1281167 -> '1,281,167'."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.0f}"


def scaled(value: float | None) -> str:
    """25557032 -> '25.6 M'."""
    if value is None or not math.isfinite(value):
        return DASH
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{SPACE}{prefix}"
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Seconds as '2 h 03 min', '3 min 20 s' or '12 s'."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return DASH
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    text = f"{hours} h {m:02d} min" if hours else f"{m} min {s:02d} s" if m else f"{s} s"
    return text.replace(" ", SPACE)


def interval(share: float | None, n: int) -> str:
    """95 % Wilson score interval of a share of n images (Wilson 1927)."""
    if share is None or not math.isfinite(share) or n <= 0:
        return DASH
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return f"{100 * low:.2f} to {100 * high:.2f}{SPACE}%"


def between(interval: Sequence[float] | None) -> str:
    """(0.8512, 0.9034) -> '85.12 to 90.34 %'."""
    return DASH if interval is None else f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}{SPACE}%"


def points(difference: float | None) -> str:
    """0.0123 -> '+1.23 points'."""
    return DASH if difference is None else f"{_signed(difference)}{SPACE}points"


def points_between(interval: Sequence[float] | None) -> str:
    """(-0.001, 0.025) -> '-0.10 to +2.50'."""
    return DASH if interval is None else f"{_signed(interval[0])} to {_signed(interval[1])}"


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "\N{MINUS SIGN}")


def main_evaluation(run: Run) -> Evaluation | None:
    """The evaluation on the run's own evaluation split; failing that, the first there is."""
    own = (run.info["dataset"]["name"], run.info["dataset"]["eval_split"])
    ranked = sorted(run.evaluations, key=lambda e: (e.content["dataset"], e.content["split"]) != own)
    return ranked[0] if ranked else None


def shown_weights(evaluation: Evaluation) -> str:
    """The weights whose details are shown: those with the higher top-1, the averaged on a tie."""
    raw, ema = evaluation.content["raw"], evaluation.content["ema"]
    return "ema" if ema and ema["top1"] >= raw["top1"] else "raw"


def results(run: Run) -> list[Result]:
    """All results of a run, its main evaluation first; without one, the last evaluation during training leads."""
    rows = []
    main = main_evaluation(run)
    own = (run.info["dataset"]["name"], run.info["dataset"]["eval_split"])
    if main is None or (main.content["dataset"], main.content["split"]) != own:
        for weights, c in run.evals.items():
            if len(c["step"]):
                last = {key: float(c[key][-1]) for key in c}
                values = (last["loss"], last["top1"], last["top5"], math.nan)
                rows.append(Result(*own, weights, int(last["step"]), int(last["images"]), *values))
    for evaluation in sorted(run.evaluations, key=lambda e: e is not main):
        c = evaluation.content
        for weights in WEIGHTS:
            if c[weights]:
                r = c[weights]
                known = (r["loss"], r["top1"], r["top5"], r["macro"].get("f1"))
                loss, top1, top5, f1 = (math.nan if value is None else value for value in known)
                rows.append(Result(c["dataset"], c["split"], weights, c["step"], c["images"], loss, top1, top5, f1))
    return rows


def final(run: Run) -> dict[str, Result]:
    """The headline's results by weights: those of `results` for the data set and split that come first."""
    rows = results(run)
    return {r.weights: r for r in reversed(rows) if (r.dataset, r.split) == (rows[0].dataset, rows[0].split)}


def steps_done(run: Run) -> int:
    """The last step that any record or evaluation of the run names."""
    last = [int(c["step"][-1]) for c in (run.train, *run.evals.values()) if len(c["step"])]
    return max([0, *last, *(int(e.content["step"]) for e in run.evaluations)])


def wall_time(run: Run) -> float:
    """Seconds from the start to the last record, pauses between stopping and resuming included; nan without records."""
    last = [float(c["time"][-1]) for c in (run.train, *run.evals.values()) if len(c["time"])]
    return max(last) - datetime.datetime.fromisoformat(run.info["started"]).timestamp() if last else math.nan


def speed(run: Run) -> float:
    """Median of the logged images per second; nan without records."""
    rates = run.train["images_per_second"]
    return float(np.median(rates[np.isfinite(rates)])) if np.isfinite(rates).any() else math.nan


def kind(run: Run) -> str:
    """The device's own name; 'CPU' where that only repeats the platform."""
    d = run.info["devices"]
    return d["platform"].upper() if d["kind"].lower() == d["platform"].lower() else d["kind"]


def device(run: Run) -> str:
    """'8 x TPU v5 lite in 2 processes'."""
    d = run.info["devices"]
    text = f"{d['count']} \N{MULTIPLICATION SIGN} {kind(run)}" if d["count"] > 1 else kind(run)
    return text + (f" in {d['processes']} processes" if d["processes"] > 1 else "")


def confused_pairs(matrix: np.ndarray, names: Sequence[str], most: int) -> list[dict[str, Any]]:
    """The largest off-diagonal counts of a (classes, classes) matrix, ties in class order; fewer where fewer are not 0."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        n, images = int(wrong[true, predicted]), int(matrix[true].sum())
        if n:
            pairs.append({"true": names[true], "predicted": names[predicted], "count": n, "share": n / images})
    return pairs


def class_rows(evaluation: Evaluation, weights: str, worst_first: bool) -> list[dict[str, Any]]:
    """The per-class results, by index or by F1 from the lowest; null becomes nan and comes last."""
    rows = [dict(row) for row in evaluation.content[weights]["per_class"]]
    for row in rows:
        row |= {key: math.nan if row[key] is None else float(row[key]) for key in ("precision", "recall", "f1")}
    return sorted(rows, key=lambda r: (math.isnan(r["f1"]), r["f1"], r["index"])) if worst_first else rows


def sample_cards(run: Run, evaluation: Evaluation, weights: str) -> list[dict[str, Any]]:
    """The sample predictions, with `link` relative to the run's directory, or None where the thumbnail is not there."""
    cards = []
    for sample in evaluation.content["samples"]:
        guesses = sample.get(weights) or sample["raw"]
        right = bool(guesses) and guesses[0]["index"] == sample["label"]
        cards.append({**sample, "link": link(run.path, sample["thumbnail"]), "guesses": guesses[:3], "right": right})
    return cards


def link(folder: pathlib.Path, thumbnail: str) -> str | None:
    """A thumbnail's link relative to the page in `folder`; None for one that is not there, or not inside it."""
    parts = pathlib.PurePosixPath(thumbnail).parts
    if ".." in parts or thumbnail.startswith("/") or not folder.joinpath("eval", *parts).is_file():
        return None
    return urllib.parse.quote("/".join(("eval", *parts)), errors="surrogateescape")


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys: {'a': {'b': 1}} -> {'a.b': 1}."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {k: v for key in tree for k, v in flatten(tree[key], f"{prefix}.{key}" if prefix else str(key)).items()}


def shown(value: Any) -> str:
    """A setting as text: strings as they are, the rest as JSON, long lists by their first items and length."""
    if isinstance(value, list) and len(value) > 6:
        return f"{', '.join(str(v) for v in value[:3])}, … ({len(value)} items)"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def differences(trees: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """The dotted keys in which nested dicts differ, with each one's value as text, a dash where it has no such key."""
    flat = [flatten(tree) for tree in trees]
    keys = list(dict.fromkeys(key for f in flat for key in f))
    absent = object()
    differing = [k for k in keys if any(f.get(k, absent) != flat[0].get(k, absent) for f in flat[1:])]
    return [(key, [shown(f[key]) if key in f else DASH for f in flat]) for key in differing]
