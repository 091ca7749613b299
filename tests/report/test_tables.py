import math

import numpy as np
import pytest

from imagenet_jax.report import read, tables


def test_formats():
    assert tables.percent(0.97222) == "97.22\u00a0%"
    assert [tables.fixed(x) for x in (0.3, 1234.5678, None, math.nan)] == ["0.300", "1,234.568", "–", "–"]  # noqa: RUF001
    assert tables.points_between((-0.001, 0.025)) == "−0.10 to +2.50"  # noqa: RUF001
    assert [tables.number(x) for x in (0.10234, 1250.9, 1e-7, math.nan)] == ["0.1023", "1,251", "1e-07", "–"]  # noqa: RUF001
    assert tables.scaled(25557032) == "25.6\u00a0M"
    assert tables.duration(7385) == "2\u00a0h\u00a003\u00a0min"
    assert tables.duration(59.6) == "1\u00a0min\u00a000\u00a0s"


def test_interval_is_wilsons():
    # scipy.stats.binomtest(350, 360).proportion_ci(method="wilson"): 0.94964, 0.98482
    assert tables.interval(350 / 360, 360) == "94.96 to 98.48\u00a0%"
    assert tables.interval(1.0, 10) == "72.25 to 100.00\u00a0%"


def test_confused_pairs_are_the_largest_off_diagonal_counts():
    matrix = np.array([[9, 1, 0], [4, 3, 2], [0, 0, 5]])
    pairs = tables.confused_pairs(matrix, ["a", "b", "c"], 20)
    assert [(p["true"], p["predicted"], p["count"]) for p in pairs] == [("b", "a", 4), ("b", "c", 2), ("a", "b", 1)]
    assert pairs[0]["share"] == pytest.approx(4 / 9)
    assert len(tables.confused_pairs(matrix, ["a", "b", "c"], 2)) == 2
    assert matrix.trace() == 17  # the argument is left as it was


def test_results_come_from_the_evaluation_else_from_the_last_record(make_run):
    work = make_run()
    assert tables.final(read.read_run(work, "x"))["ema"].top1 == 0.8642
    (work / "eval" / "digits-validation.json").unlink()
    final = tables.final(read.read_run(work, "x"))
    assert (final["raw"].step, final["raw"].top1, final["raw"].images) == (400, pytest.approx(400 / 450), 20)


def test_details_are_of_the_better_weights(make_run):
    run = read.read_run(make_run(), "x")
    evaluation = run.evaluations[0]
    assert tables.shown_weights(evaluation) == "ema"
    evaluation.content["ema"]["top1"] = 0.1
    assert tables.shown_weights(evaluation) == "raw"


def test_classes_come_worst_first_with_the_unknown_last(make_run):
    evaluation = read.read_run(make_run(), "x").evaluations[0]
    rows = evaluation.content["raw"]["per_class"]
    rows[4]["f1"], rows[2]["f1"] = 0.1, None
    order = [row["index"] for row in tables.class_rows(evaluation, "raw", worst_first=True)]
    assert (order[0], order[-1]) == (4, 2)
    assert [r["index"] for r in tables.class_rows(evaluation, "raw", worst_first=False)] == list(range(10))


def test_differences_name_the_keys_and_keep_absent_ones_apart_from_null():
    one = {"a": 1, "b": {"c": None, "d": "x"}}
    two = {"a": 1, "b": {"d": "y"}}
    assert tables.differences([one, two]) == [("b.c", ["null", tables.DASH]), ("b.d", ["x", "y"])]
    assert tables.differences([one, one]) == []


@pytest.mark.parametrize("thumbnail", ["../config.json", "/etc/hostname", "digits-validation/absent.jpg"])
def test_a_thumbnail_outside_the_run_or_absent_is_not_linked(make_run, thumbnail):
    run = read.read_run(make_run(), "x")
    run.evaluations[0].content["samples"][0]["thumbnail"] = thumbnail
    cards = tables.sample_cards(run, run.evaluations[0], "raw")
    assert [card["link"] for card in cards] == [None, "eval/digits-validation/00000001.jpg"]
    assert [card["right"] for card in cards] == [True, False]
