"""Medians, and the interval of a ratio of them."""

import numpy as np
import pytest

from imagenet_jax.bench import stats


def test_summary_of_an_even_number_of_rounds():
    assert stats.summary([3.0, 1.0, 2.0, 10.0]) == {"n": 4, "median": 2.5, "min": 1.0, "max": 10.0}


def test_rounds_are_compared_in_pairs():
    theirs = [100.0, 300.0, 150.0, 800.0, 120.0]  # a machine of changing speed, ours always twice as fast
    assert stats.ratio([2 * t for t in theirs], theirs) == (2.0, 2.0, 2.0)


def test_interval_covers_the_ratio_and_widens_with_the_spread():
    rng = np.random.default_rng(1)
    steady, shaky = (100 * (1 + s * rng.standard_normal(9)) for s in (0.01, 0.1))
    theirs = 50 * (1 + 0.01 * rng.standard_normal(9))
    widths = []
    for ours in (steady, shaky):
        value, low, high = stats.ratio(ours.tolist(), theirs.tolist())
        assert low <= value <= high
        assert value == pytest.approx(2, abs=0.2)
        widths.append(high - low)
    assert 0 < widths[0] < widths[1] / 3


def test_interval_holds_the_share_that_is_asked_for():
    ours = [float(x) for x in np.random.default_rng(2).normal(100, 10, 11)]
    _, low, high = stats.ratio(ours, [100.0] * 11)
    medians = [np.median(np.random.default_rng(i).choice(ours, 11)) / 100 for i in range(2000)]
    assert np.mean([(low <= m <= high) for m in medians]) == pytest.approx(0.9, abs=0.03)
