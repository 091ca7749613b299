"""Metrics against scikit-learn and against counting by hand, ties and NaN included."""

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.metrics import topk
from imagenet_jax.metrics.confusion import add_to_confusion, scores


def device_confusion(predicted, label, mask, classes):
    return add_to_confusion(jnp.zeros((classes, classes), jnp.int32), predicted, label, mask)


sklearn_metrics = pytest.importorskip("sklearn.metrics")


def test_confusion_and_scores_equal_scikit_learn_at_an_odd_count():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 7, 1013) * rng.integers(0, 2, 1013), rng.integers(0, 7, 1013)  # half of them are 0
    predicted = np.where(rng.random(1013) < 0.6, label, predicted)
    matrix = np.asarray(device_confusion(jnp.asarray(predicted), jnp.asarray(label), jnp.ones(1013, bool), 7))
    np.testing.assert_array_equal(matrix, sklearn_metrics.confusion_matrix(label, predicted))
    got = scores(matrix, [str(i) for i in range(7)])
    p, r, f, n = sklearn_metrics.precision_recall_fscore_support(label, predicted, zero_division=0)
    for i, row in enumerate(got["per_class"]):
        assert (row["precision"], row["recall"], row["f1"], row["images"]) == pytest.approx((p[i], r[i], f[i], n[i]))
    for average in ("macro", "weighted"):
        p, r, f, _ = sklearn_metrics.precision_recall_fscore_support(label, predicted, average=average, zero_division=0)
        assert (got[average]["precision"], got[average]["recall"], got[average]["f1"]) == pytest.approx((p, r, f))


def test_macro_averages_leave_out_classes_that_do_not_occur():
    label, predicted = np.array([0, 0, 2, 2]), np.array([0, 2, 2, 3])  # 1 and 4 occur nowhere, 3 as a prediction only
    matrix = np.asarray(device_confusion(jnp.asarray(predicted), jnp.asarray(label), jnp.ones(4, bool), 5))
    want = sklearn_metrics.recall_score(label, predicted, average="macro", zero_division=0)
    macro = scores(matrix, list("abcde"))["macro"]
    assert macro["recall"] == pytest.approx(want)
    assert macro["classes"] == 3


def test_mask_keeps_padding_out_of_the_confusion():
    mask = jnp.asarray([True, False])
    assert device_confusion(jnp.asarray([1, 1]), jnp.asarray([0, 0]), mask, 2).tolist() == [[0, 1], [0, 0]]


def test_top_k_breaks_ties_by_index_and_takes_nan_for_wrong():
    logits = jnp.asarray([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [np.nan, 1.0, 0.0], [5.0, 5.0, 0.0]])
    labels = jnp.asarray([0, 2, 1, 1])
    assert topk.correct(logits, labels, 1).tolist() == [True, False, False, False]
    assert topk.correct(logits, labels, 2).tolist() == [True, True, False, True]


def test_top_k_equals_sorting():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(200, 20)), rng.integers(0, 20, 200)
    want = [label in np.argsort(-row)[:5] for row, label in zip(logits, labels, strict=True)]
    assert topk.correct(jnp.asarray(logits), jnp.asarray(labels), 5).tolist() == want
