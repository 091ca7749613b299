"""Numbers from rounds: a median with its spread, and the ratio of two medians with an interval."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 4000


def summary(values: Sequence[float]) -> dict[str, float]:
    """n, median, min and max."""
    return {"n": len(values), "median": float(np.median(values)), "min": min(values), "max": max(values)}


def ratio(ours: Sequence[float], theirs: Sequence[float], share: float = 0.9) -> tuple[float, float, float]:
    """Ratio of the medians of paired rounds, and the ends of the interval that holds `share` of its bootstrap distribution.

    Rounds are drawn with replacement, both sides of a round together, so that what slowed a whole round down cancels (percentile
    bootstrap, Efron 1979). The draws are always the same.
    """
    a, b = np.asarray(ours), np.asarray(theirs)
    drawn = np.random.default_rng(0).integers(0, len(a), (RESAMPLES, len(a)))
    resampled = np.median(a[drawn], axis=1) / np.median(b[drawn], axis=1)
    low, high = np.quantile(resampled, ((1 - share) / 2, (1 + share) / 2))
    return float(np.median(a) / np.median(b)), float(low), float(high)
