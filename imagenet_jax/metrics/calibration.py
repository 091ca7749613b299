"""Whether probabilities mean what they say: calibration error, proper scores, and one temperature that mends most of it.

NumPy alone, on the logits of every image, float (n, classes), with labels int (n,). Softmaxes are taken `CHUNK` rows at a time in
float64, so memory holds the logits and little else.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

BINS = 15  # as Guo et al. 2017 and nearly everyone since
CHUNK = 2048  # images
TEMPERATURES = (0.05, 20.0)  # where the fit ends, if the data say no more than "surer still" or "less sure still"


class Scores(NamedTuple):
    """Of each image, float64 (n,) but for `correct`."""

    confidence: np.ndarray  # the largest probability
    correct: np.ndarray  # bool: whether the first of the most probable classes is the label
    nll: np.ndarray  # -log p(label), nats
    brier: np.ndarray  # sum over classes of (p - y)^2, from 0 to 2 (Brier 1950)


def scores(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> Scores:
    """The scores of softmax(logits / temperature)."""
    parts = []
    for z, own in _chunks(logits, labels):
        z, rows = z / temperature, np.arange(len(z))
        p = np.exp(z - z.max(1, keepdims=True))
        total = p.sum(1)
        p /= total[:, None]
        nll = np.log(total) + z.max(1) - z[rows, own]
        brier = np.square(p).sum(1) - 2 * p[rows, own] + 1
        parts.append((p.max(1), np.argmax(z, 1) == own, nll, brier))
    return Scores(*map(np.concatenate, zip(*parts, strict=True)))


def reliability(confidence: np.ndarray, correct: np.ndarray, *, equal_mass: bool = False) -> list[dict[str, float | int]]:
    """The reliability diagram, (n,) each: {"low", "high", "images", "confidence", "accuracy"} of each of `BINS` bins with an image.

    Bins are low < confidence <= high, of equal width; or, with `equal_mass`, between quantiles, so that all hold about as many
    images and ties stay together (Nguyen and O'Connor 2015).
    """
    edges = np.linspace(0, 1, BINS + 1)
    if equal_mass:
        edges = np.quantile(confidence, edges)
    place = np.searchsorted(edges[1:-1], confidence)
    images = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, weights, minlength=BINS) for weights in (confidence, correct)]
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "images": int(images[b]),
            "confidence": float(sums[0][b] / images[b]),
            "accuracy": float(sums[1][b] / images[b]),
        }
        for b in np.flatnonzero(images)
    ]


def calibration_error(bins: list[dict[str, float | int]]) -> float:
    """Expected calibration error: the mean over images of their bin's |accuracy - confidence| (Guo et al. 2017, equation 3)."""
    return sum(b["images"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / sum(b["images"] for b in bins)


def error_by_chance(confidence: np.ndarray, *, draws: int = 100, seed: int = 0) -> float:
    """The calibration error (equal widths) to expect of perfect calibration: each image is right with its own confidence (n,).

    It is not 0: with EfficientNet-Lite0's confidences 265 images give 0.05 and 1,000 give 0.02. Mean over `draws` (Vaicenavicius et
    al. 2019, arXiv 1902.06977).
    """
    rng = np.random.default_rng(seed)
    outcomes = (rng.random(len(confidence)) < confidence for _ in range(draws))
    return float(np.mean([calibration_error(reliability(confidence, correct)) for correct in outcomes]))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature within `TEMPERATURES` whose mean negative log likelihood is least (Guo et al. 2017, section 4.2).

    In b = 1 / temperature that likelihood is convex, its derivatives are E[z] - z_label and Var[z] under the softmax: Newton's
    steps, and halving wherever one would leave the interval that holds the minimum.
    """
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    b = 1.0
    for _ in range(60):
        slope = curvature = 0.0
        for z, own in _chunks(logits, labels):
            p = np.exp(b * (z - z.max(1, keepdims=True)))
            p /= p.sum(1, keepdims=True)
            mean = (p * z).sum(1)
            slope += float((mean - z[np.arange(len(z)), own]).sum())
            curvature += float((p * np.square(z - mean[:, None])).sum())
        low, high = (b, high) if slope < 0 else (low, b)
        step = b - slope / curvature if curvature > 0 else b
        new = step if low < step < high else (low + high) / 2
        if abs(new - b) <= 1e-9 * b:
            break
        b = new
    return 1 / b


def summary(logits: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> dict[str, Any] | None:
    """All numbers of one evaluation, for JSON; None where a logit is not finite.

    "ece", "ece_by_chance", "adaptive_ece", "nll", "brier" and "reliability" (bins of equal width) of all images; under
    "temperature" what was fitted to the images that bool `held_out` (n,) leaves, and the same numbers of those held out, before and
    after; None where either part is empty.
    """
    if not np.isfinite(logits).all():
        return None
    result = _numbers(scores(logits, labels)) | {"temperature": None}
    if held_out.any() and not held_out.all():
        value = fit_temperature(logits[~held_out], labels[~held_out])
        rest, own = logits[held_out], labels[held_out]
        before, after = (_numbers(scores(rest, own, t)) for t in (1.0, value))
        fitted_to, reported_on = int((~held_out).sum()), int(held_out.sum())
        result["temperature"] = {
            "value": value, "fitted_to": fitted_to, "reported_on": reported_on, "before": before, "after": after,
        }  # fmt: skip
    return result


def _numbers(of: Scores) -> dict[str, Any]:
    bins = reliability(of.confidence, of.correct)
    return {
        "ece": calibration_error(bins),
        "ece_by_chance": error_by_chance(of.confidence),
        "adaptive_ece": calibration_error(reliability(of.confidence, of.correct, equal_mass=True)),
        "nll": float(of.nll.mean()),
        "brier": float(of.brier.mean()),
        "reliability": bins,
    }


def _chunks(logits: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(0, len(logits), CHUNK):
        yield logits[i : i + CHUNK].astype(np.float64), labels[i : i + CHUNK]
