"""Scores of categories and mistakes against brute force over every image, on random graphs with several parents."""

import json
import random
from typing import NamedTuple

import numpy as np
import pytest

from imagenet_jax.data.labels import classes, wordnet
from imagenet_jax.data.labels.hierarchy import Hierarchy, Synset, imagenet1k
from imagenet_jax.metrics import hierarchy
from imagenet_jax.metrics.confusion import scores as plain_scores

sklearn_metrics = pytest.importorskip("sklearn.metrics")


class Counted(NamedTuple):
    confusion: np.ndarray
    labels: np.ndarray = np.zeros(0, int)
    logits: np.ndarray = np.zeros((0, 0))


def graph(seed):
    """A random graph of 30 synsets, and 12 of them as classes, some a kind of others."""
    rng = random.Random(seed)
    parents = {f"n{i}": tuple(f"n{j}" for j in sorted(rng.sample(range(i), min(i, rng.choice((1, 1, 2)))))) for i in range(30)}
    tree = Hierarchy({wnid: Synset(above, (f"word {wnid}",)) for wnid, above in parents.items()})
    return tree, sorted(rng.sample(sorted(parents), 12))


def answers(seed, n=301):
    rng = np.random.default_rng(seed)
    label, predicted = rng.integers(0, 12, n), rng.integers(0, 12, n)
    predicted = np.where(rng.random(n) < 0.5, label, predicted)
    matrix = np.zeros((12, 12), np.int64)
    np.add.at(matrix, (label, predicted), 1)
    return label, predicted, matrix


@pytest.mark.parametrize("seed", range(3))
def test_categories_are_scored_as_scikit_learn_scores_the_question(seed):
    tree, wnids = graph(seed)
    label, predicted, matrix = answers(seed)
    rows = {row["wnid"]: row for row in hierarchy.categories(matrix, wnids, tree)}
    members = {category: [tree.is_a(wnid, category) for wnid in wnids] for category in tree.synsets}
    assert set(rows) == {category for category, inside in members.items() if sum(inside) > 1}
    for category, row in rows.items():
        inside = np.array(members[category])
        p, r, f, _ = sklearn_metrics.precision_recall_fscore_support(
            inside[label], inside[predicted], average="binary", zero_division=0
        )
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((p, r, f))
        assert (row["classes"], row["images"]) == (inside.sum(), inside[label].sum())
        assert row["parent"] is None or row["parent"] in list(rows)[: list(rows).index(category)]


@pytest.mark.parametrize("seed", range(3))
def test_severities_are_those_of_every_image(seed):
    tree, wnids = graph(seed)
    label, predicted, matrix = answers(seed)
    each = [tree.severity(wnids[a], wnids[b]) for a, b in zip(label, predicted, strict=True)]
    got = hierarchy.scores(Counted(matrix), wnids, tree)
    assert got["distance_at"] == {"1": pytest.approx(np.mean(each))}
    assert got["mistake_severity"] == pytest.approx(np.sum(each) / np.sum(label != predicted))
    assert got["least_severity"] is None
    table = hierarchy.severities(wnids, tree)
    assert table.tolist() == [[tree.severity(a, b) for b in wnids] for a in wnids]


def test_logits_say_more():
    tree, wnids = graph(1)
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 12, 80), rng.normal(size=(80, 12)) * 2
    predicted = logits.argmax(1)
    matrix = np.zeros((12, 12), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    got = hierarchy.scores(Counted(matrix, labels, logits), wnids, tree)
    severity = np.vectorize(lambda a, b: tree.severity(wnids[a], wnids[b]))
    five = np.sort(severity(labels[:, None], np.argsort(-logits, 1)[:, :5]))
    assert got["distance_at"] == {"1": pytest.approx(severity(labels, predicted).mean()), "5": pytest.approx(five.mean())}
    careful = [min(range(12), key=lambda c: sum(np.exp(row[j]) * severity(j, c) for j in range(12))) for row in logits]
    right = labels == careful
    assert got["least_severity"]["top1"] == pytest.approx(right.mean())
    assert got["least_severity"]["mistake_severity"] == pytest.approx(severity(labels, careful)[~right].mean())


def test_semantic_top1_asks_for_a_class_of_each_depth():
    tree, wnids = graph(1)
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 12, 60)
    logits = rng.normal(size=(60, 12)) + 2 * np.eye(12)[labels]
    chains = [[wnids.index(w) for w in tree.path(wnid) if w in wnids] for wnid in wnids]
    groups = [[c for c in range(12) if len(chains[c]) == length] for length in range(1, max(map(len, chains)) + 1)]
    answers = [
        max(group, key=lambda c: row[c]) == chains[label][depth]
        for row, label in zip(logits, labels, strict=True)
        for depth, group in enumerate(groups[: len(chains[label])])
        if len(group) > 1
    ]
    assert hierarchy.semantic_top1(logits, labels, tree.nearest_classes(wnids)) == pytest.approx(np.mean(answers))
    assert len(answers) > 80  # several depths
    assert 0.1 < np.mean(answers) < 0.9


def test_without_a_mistake_there_is_no_severity():
    tree, wnids = graph(0)
    got = hierarchy.scores(Counted(np.eye(12, dtype=np.int64)), wnids, tree)
    assert (got["mistake_severity"], got["distance_at"]) == (None, {"1": 0})
    assert all(row["f1"] == 1 for row in got["categories"])
    nothing = hierarchy.scores(Counted(np.zeros((12, 12), np.int64)), wnids, tree)
    assert {row["f1"] for row in nothing["categories"]} == {0}


def test_distance_at_k_is_the_mean_over_the_k_most_likely():
    tree, wnids = graph(1)
    rng = np.random.default_rng(1)
    labels, ranked = rng.integers(0, 12, 40), np.argsort(rng.random((40, 12)))[:, :5]
    want = [
        np.mean([tree.severity(wnids[label], wnids[c]) for label, row in zip(labels, ranked, strict=True) for c in row[:k]])
        for k in range(1, 6)
    ]
    assert hierarchy.distance_at(ranked, labels, hierarchy.severities(wnids, tree)) == pytest.approx(want)


def test_the_least_expected_severity_is_found_among_all_answers():
    tree, wnids = graph(2)
    probabilities = np.random.default_rng(2).dirichlet(np.full(12, 0.3), 50)
    got = hierarchy.expected_severity(probabilities, hierarchy.severities(wnids, tree))
    want = [
        [sum(p * tree.severity(truth, answer) for truth, p in zip(wnids, row, strict=True)) for answer in wnids]
        for row in probabilities
    ]
    np.testing.assert_allclose(got, want)
    assert (got.argmin(1) != probabilities.argmax(1)).any()  # else nothing was asked


def test_imagenets_categories_are_known_by_wnid():
    """One image a class, each taken for the next: two cranes, and as many dogs as is known."""
    names = classes.readable(classes.wnids())
    confusion = np.roll(np.eye(1000, dtype=np.int64), 1, axis=1)
    got = hierarchy.describe({"raw": Counted(confusion), "ema": Counted(np.eye(1000, dtype=np.int64))}, names)
    assert got["wnids"] == classes.wnids()
    rows = {row["wnid"]: row for row in got["raw"]["categories"]}
    assert (rows["n02084071"]["name"], rows["n02084071"]["classes"], rows["n02084071"]["images"]) == ("dog", 118, 118)
    assert rows["n02084071"]["recall"] == pytest.approx(117 / 118)  # dogs are neighbours but for the last
    assert rows["n00001740"]["parent"] is None
    assert got["ema"]["mistake_severity"] is None
    assert len(json.dumps(got["raw"])) < 200_000
    table = hierarchy.severities(classes.wnids(), imagenet1k())
    assert (table[0, 1], table.max(), table[134, 517]) == (1, 18, table[517, 134])
    assert table[np.triu_indices(1000, 1)].mean() == pytest.approx(12.84, abs=0.02)  # of a random pair, counted before


def test_other_classes_have_no_hierarchy(monkeypatch):
    matrix = Counted(np.eye(2, dtype=np.int64))
    assert hierarchy.describe({"raw": matrix}, ["red", "green"]) is None
    monkeypatch.setattr(wordnet, "PLACES", ())
    for name in ("WNSEARCHDIR", "WNHOME"):
        monkeypatch.delenv(name, raising=False)
    assert "wordnet-base" in hierarchy.describe({"raw": matrix}, ["n00000020", "n00000030"])["absent"]


def test_a_category_of_all_classes_is_right_where_every_class_is_wrong():
    tree, wnids = graph(0)
    matrix = np.roll(np.eye(12, dtype=np.int64), 1, axis=1)
    assert plain_scores(matrix, wnids)["macro"]["f1"] == 0
    assert hierarchy.categories(matrix, wnids, tree)[0]["f1"] == 1
