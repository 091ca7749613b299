"""Bootstrap intervals against scipy's, and what must not change them."""

import numpy as np
import pytest
from scipy import stats

from imagenet_jax.metrics import bootstrap


@pytest.fixture
def right():
    return np.random.default_rng(0).random(1013) < 0.7


def test_an_interval_is_that_of_scipy(right):
    options = {"n_resamples": 2000, "method": "percentile", "rng": np.random.default_rng(1), "vectorized": True, "batch": 100}
    want = stats.bootstrap((right.astype(float),), np.mean, **options).confidence_interval
    assert bootstrap.interval(right) == pytest.approx((want.low, want.high), abs=0.002)
    low, high = bootstrap.interval(right, level=0.5)
    assert high - low == pytest.approx(2 * 0.6745 * right.std() / np.sqrt(1013), rel=0.1)


def test_pairing_makes_the_difference_of_two_models_sharper(right):
    other = right.copy()
    other[:20] = ~other[:20]
    low, high = bootstrap.interval(other.astype(int) - right)
    assert low <= other.mean() - right.mean() <= high
    alone = bootstrap.interval(right)
    assert high - low < (alone[1] - alone[0]) / 3


def test_it_is_seeded_and_memory_does_not_change_it_in_kind(right, monkeypatch):
    assert bootstrap.interval(right) == bootstrap.interval(right)
    assert bootstrap.interval(right) != bootstrap.interval(right, seed=1)
    monkeypatch.setattr(bootstrap, "DRAWS", 1)  # one sample at a time
    assert bootstrap.interval(right) == pytest.approx(bootstrap.interval(right, seed=1), abs=0.003)


def test_equal_values_have_no_spread():
    assert bootstrap.interval(np.ones(3)) == (1.0, 1.0)
