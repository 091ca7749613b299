"""How far a mean over images would move with other images: percentile bootstrap (Efron 1979), seeded.

It is the chance in drawing the images that is meant, not the spread between training runs. Of values that are all equal it says
nothing: the interval has no width.
"""

import numpy as np

RESAMPLES = 2000
DRAWS = 1 << 20  # indices at a time: 4 MB, whatever the number of images


def interval(values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """(low, high) of the mean of `values`, (n,): the central `level` of its means over `resamples` samples with replacement.

    For the difference of two models on the same images, give the differences by image: that is the paired bootstrap.
    """
    rng, n = np.random.default_rng(seed), len(values)
    rows = max(1, DRAWS // n)
    values = values.astype(np.float64)
    means = np.concatenate(
        [values[rng.integers(0, n, (min(rows, resamples - i), n), np.int32)].mean(1) for i in range(0, resamples, rows)]
    )
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)
