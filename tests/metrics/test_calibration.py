"""Calibration against scikit-learn and scipy, on 1,013 images: no batch size and no number of bins divides them."""

import numpy as np
import pytest
from scipy import optimize, special
from sklearn import calibration as sklearn_calibration
from sklearn import metrics as sklearn_metrics

from imagenet_jax.metrics import calibration

N, CLASSES = 1013, 7


@pytest.fixture(scope="module")
def drawn():
    """Logits (n, 7) float32 that are right more often than chance, and too sure of themselves; labels; a half."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, N)
    logits = 2.5 * rng.normal(size=(N, CLASSES)) + 3 * np.eye(CLASSES)[labels]
    return logits.astype(np.float32), labels, rng.random(N) < 0.5


def error_of(confidence, correct, strategy):
    """Expected calibration error from scikit-learn's reliability diagram; how many images a bin holds, it does not say."""
    accuracy, mean = sklearn_calibration.calibration_curve(correct, confidence, n_bins=15, strategy=strategy)
    edges = np.linspace(0, 1, 16) if strategy == "uniform" else np.quantile(confidence, np.linspace(0, 1, 16))
    held = np.bincount(np.searchsorted(edges[1:-1], confidence))
    return np.sum(held[held > 0] / len(confidence) * np.abs(accuracy - mean))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_scores_equal_scikit_learn(drawn, temperature, monkeypatch):
    monkeypatch.setattr(calibration, "CHUNK", 100)
    logits, labels, _ = drawn
    p = special.softmax(logits.astype(np.float64) / temperature, 1)
    got = calibration.scores(logits, labels, temperature)
    np.testing.assert_array_equal(got.correct, p.argmax(1) == labels)
    np.testing.assert_allclose(got.confidence, p.max(1))
    assert got.nll.mean() == pytest.approx(sklearn_metrics.log_loss(labels, p))
    brier = sklearn_metrics.brier_score_loss(labels, p, labels=range(CLASSES), scale_by_half=False)
    assert got.brier.mean() == pytest.approx(brier)
    for strategy in ("uniform", "quantile"):
        bins = calibration.reliability(got.confidence, got.correct, equal_mass=strategy == "quantile")
        assert sum(b["images"] for b in bins) == N
        assert calibration.calibration_error(bins) == pytest.approx(error_of(got.confidence, got.correct, strategy))


def test_bins_of_equal_mass_hold_as_many_each():
    confidence = np.random.default_rng(1).random(1013)
    bins = calibration.reliability(confidence, confidence > 0.5, equal_mass=True)
    assert len(bins) == 15
    assert {b["images"] for b in bins} <= {67, 68}


def test_perfect_and_worst_calibration():
    sure = np.ones(8)
    assert calibration.calibration_error(calibration.reliability(sure, np.ones(8, bool))) == 0
    assert calibration.calibration_error(calibration.reliability(sure, np.zeros(8, bool))) == 1


@pytest.mark.parametrize("n", [265, 1013])
def test_perfect_calibration_has_the_error_that_chance_gives_it(n):
    rng = np.random.default_rng(2)
    confidence = rng.random(n)
    errors = [error_of(confidence, rng.random(n) < confidence, "uniform") for _ in range(200)]
    assert calibration.error_by_chance(confidence) == pytest.approx(np.mean(errors), rel=0.08)


def test_temperature_is_the_minimum_that_scipy_finds(drawn):
    logits, labels, _ = drawn

    def nll(t):
        return sklearn_metrics.log_loss(labels, special.softmax(logits.astype(np.float64) / t, 1))

    found = optimize.minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert calibration.fit_temperature(logits, labels) == pytest.approx(found.x, rel=1e-5)
    for factor in (1e-3, 1e3):  # far from where Newton begins
        assert calibration.fit_temperature(factor * logits, labels) == pytest.approx(np.clip(factor * found.x, 0.05, 20), rel=1e-4)


def test_the_temperature_is_reported_on_images_that_it_was_not_fitted_to(drawn):
    logits, labels, half = drawn
    result = calibration.summary(logits, labels, half)
    t = result["temperature"]
    assert t["value"] == calibration.fit_temperature(logits[~half], labels[~half])
    assert (t["fitted_to"], t["reported_on"]) == (int((~half).sum()), int(half.sum()))
    for when, temperature in (("before", 1.0), ("after", t["value"])):
        assert t[when]["nll"] == pytest.approx(calibration.scores(logits[half], labels[half], temperature).nll.mean())
    assert t["after"]["nll"] < t["before"]["nll"]
    assert t["after"]["ece"] < t["before"]["ece"]


def test_what_cannot_be_said_is_none(drawn):
    logits, labels, _ = drawn
    assert calibration.summary(logits, labels, np.ones(N, bool))["temperature"] is None
    assert calibration.summary(logits, labels, np.zeros(N, bool))["temperature"] is None
    broken = np.where(np.arange(N)[:, None] == 7, np.nan, logits)
    assert calibration.summary(broken, labels, np.zeros(N, bool)) is None
