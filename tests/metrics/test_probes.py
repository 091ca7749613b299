"""Probes against scikit-learn, on features that no class separates."""

import numpy as np
import pytest

from imagenet_jax.metrics import probes

linear_model = pytest.importorskip("sklearn.linear_model")
neighbors = pytest.importorskip("sklearn.neighbors")
CLASSES = 5


@pytest.fixture(scope="module")
def data():
    """Features float32 (n, 12) about five overlapping centres, and labels: 203 to learn, 101 to classify."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, 12))

    def draw(n):
        labels = rng.integers(0, CLASSES, n).astype(np.int32)
        return (3 + centres[labels] + rng.normal(scale=1.5, size=(n, 12))).astype(np.float32), labels

    return *draw(203), *draw(101)


def test_neighbours_vote_as_scikit_learns_do(data):
    x, y, queries, _ = data
    oracle = neighbors.KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)).fit(x, y)
    np.testing.assert_array_equal(probes.nearest(x, y, queries, CLASSES), oracle.predict(queries))


def test_fewer_examples_than_neighbours(data):
    x, y, queries, _ = data
    few = probes.nearest(x[:3], y[:3], queries, CLASSES)
    assert set(few.tolist()) <= set(y[:3].tolist())


@pytest.mark.parametrize("count", [203, 9])  # more examples than features, and fewer
def test_ridge_and_its_leave_one_out_equal_scikit_learns(data, count):
    x, y, queries, _ = data
    x, y = x[:count], y[:count]
    penalties = [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3]
    got = probes.ridge(x, y, CLASSES, penalties)
    targets = np.where(y[:, None] == np.arange(CLASSES), 1.0, -1.0)
    oracle = linear_model.RidgeCV(alphas=[count * p for p in penalties]).fit(x.astype(np.float64), targets)
    assert count * got.penalty == pytest.approx(oracle.alpha_)
    assert penalties[0] < got.penalty < penalties[-1]
    np.testing.assert_allclose(got.kernel, oracle.coef_.T, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(got.bias, oracle.intercept_, rtol=1e-7)
    np.testing.assert_array_equal(got.predict(queries), np.argmax(oracle.predict(queries), 1))


def test_logistic_regression_equals_scikit_learns(data):
    x, y, _, _ = data
    (x,) = probes.standardized(x)

    def loss(kernel, bias, penalty):
        logits = x.astype(np.float64) @ kernel + bias
        log_sum = np.log(np.exp(logits).sum(1))
        return np.mean(log_sum - logits[np.arange(len(y)), y]) + penalty / 2 * np.square(kernel).sum()

    start = None
    for penalty in (1e-1, 1e-3):  # the second from where the first ended
        start = got = probes.logistic(x, y, CLASSES, penalty, start=start)
        oracle = linear_model.LogisticRegression(C=1 / (len(x) * penalty), tol=1e-9, max_iter=1000).fit(x.astype(np.float64), y)
        least = loss(oracle.coef_.T, oracle.intercept_, penalty)
        assert got.converged
        assert least - 1e-7 <= loss(got.kernel, got.bias, penalty) <= least + 1e-5
        np.testing.assert_allclose(got.kernel, oracle.coef_.T, atol=2e-4 / penalty)
        assert probes.logistic(x, y, CLASSES, penalty, start=got).kernel.tobytes() == got.kernel.tobytes()  # it is there already


def test_logistic_regression_says_when_its_steps_ran_out(data):
    x, y, _, _ = data
    assert not probes.logistic(x, y, CLASSES, 1e-6, steps=2).converged


def test_standardized_features_have_one_scale_and_keep_their_proportions(data):
    x, _, queries, _ = data
    a, b = probes.standardized(x, queries)
    np.testing.assert_allclose(a.mean(0), 0, atol=1e-6)
    assert np.mean(a.var(0)) == pytest.approx(1, abs=1e-5)
    ratio = (x[1:] - x[:-1]) / (a[1:] - a[:-1])
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)
    np.testing.assert_allclose((queries[0] - queries[1]) / (b[0] - b[1]), ratio[0, 0], rtol=1e-3)
    assert a.dtype == b.dtype == np.float32
