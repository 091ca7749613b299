"""What the picture and the table show."""

from imagenet_jax.bench import chart, table
from imagenet_jax.bench.input import MEASURED


def row(contestant, median, engine=None, antialias=True, decibels=50.0, **more):
    quality = {"median": decibels, "p5": 40.0, "n": 3, "shrinking_median": decibels, "shrinking_p5": 40.0, "shrinking_n": 3}
    return {
        "contestant": contestant, "label": contestant, "engine": engine, "data": "original", "antialias": antialias, "cores": 1,
        "status": MEASURED, "pixels": True, "median": median, "min": median - 1, "max": median + 1, "quality": quality,
        "engine_version": "1.0",
    } | more  # fmt: skip


def test_the_picture_has_the_fastest_engine_of_each_kind_that_is_close_enough():
    rows = [
        row("ours", 100.0, "a"),
        row("ours", 200.0, "b"),
        row("ours", 300.0, "c", decibels=40.0),
        row("ours", 400.0, "c", antialias=False, decibels=35.0),
        row("ours", 50.0, "a", data="marked"),
        row("OpenCV", 150.0, antialias=False),
        row("ours, nothing decoded", 9000.0, pixels=False),
        row("gone", 0.0, status="not installed (No module named 'gone')"),
    ]
    assert [(r["contestant"], r["engine"], r["median"]) for r in chart.shown(rows)] == [
        ("ours", "a", 50.0),
        ("OpenCV", None, 150.0),
        ("ours", "b", 200.0),
        ("ours", "c", 400.0),
    ]


def test_a_status_from_a_library_is_one_printable_line_of_the_table():
    text = table._rates([row("OpenCV", 1.0), row("gone", 0.0, status="failed (\x1b[31mError\nin line two " + 200 * "x" + ")")])
    line = text.splitlines()[2]
    assert len(text.splitlines()) == 3
    assert line.isprintable()
    assert "Error in line two" in line
    assert len(line) < 150


def test_columns_are_as_wide_as_they_need():
    assert (
        table.columns([("a", "bb", "c"), ("ddd", "e", "f"), ("g", "a long last cell")])
        == "a    bb  c\nddd  e   f\ng    a long last cell"
    )
