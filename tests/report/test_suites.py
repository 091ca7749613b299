"""Suites on the page: their rows, calibration, and two models side by side."""

import html
import json
import re

import numpy as np
import pytest

from imagenet_jax import report
from imagenet_jax.errors import UserError
from imagenet_jax.metrics import bootstrap, calibration
from imagenet_jax.report import suites


def words(path):
    """The text of a page."""
    body = re.sub(r"(?s)<(style|script)>.*?</\1>", "", path.read_text())
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u00a0", " ").split())


def row(values, **changed):
    mean = float(np.nanmean(values))
    content = {
        "set": "ImageNet-R", "dataset": "imagenet_r", "version": "0.2.0", "split": "test", "labels": "its own",
        "fingerprint": "abc", "image_size": 224, "crop_ratio": 0.875, "flip": False, "weights": "raw", "classes": 200,
        "images": len(values),
        "published_images": 30_000, "top1": mean, "top1_interval": [mean - 0.04, mean + 0.04], "top5": 0.9, "loss": 1.5,
        "macro": {"f1": 0.25}, "weighted": {"f1": 0.375}, "calibration": {"ece": 0.123},
    }  # fmt: skip
    return content | changed


@pytest.fixture
def right():
    """Which of 101 images two models have right, the second a few more."""
    first = np.random.default_rng(0).random(101) < 0.6
    return first.astype(np.float32), (first | (np.arange(101) % 9 == 0)).astype(np.float32)


@pytest.fixture
def weights(tmp_path):
    """weights(name, rows, arrays): a folder of weights with the suite `paper`."""

    def make(name, rows, arrays):
        (tmp_path / name / "suite").mkdir(parents=True)
        (tmp_path / name / "weights.json").write_text("{}")
        content = {"own_view": {"image_size": 224, "flip": False}, "rows": rows}
        (tmp_path / name / "suite" / "paper.json").write_text(json.dumps(content))
        np.savez(tmp_path / name / "suite" / "paper.npz", **{f"values_{i}": values for i, values in enumerate(arrays)})
        return tmp_path / name

    return make


def test_two_models_are_compared_image_by_image(weights, right):
    a, b = (weights(name, [row(values)], [values]) for name, values in zip("ab", right, strict=True))
    sides = [suites.read_weights(folder, folder.name) for folder in (a, b)]
    ((first, second),) = [line["cells"] for line in suites.side_by_side(sides)]
    assert first["difference"] is None
    assert second["difference"] == pytest.approx(right[1].mean() - right[0].mean())
    assert second["interval"] == bootstrap.interval(right[1].astype(float) - right[0])
    text = words(report.write_report([a, b]))
    low, high = (f"{100 * x:+.2f}".replace("-", "\N{MINUS SIGN}") for x in second["interval"])
    for expected in (
        "2 models compared", f"{100 * second['difference']:+.2f} points {low} to {high}", "ImageNet-R of 30,000 published images",
        "90.00 %", "25.00 %", "37.50 %", "0.123", f"{100 * right[0].mean():.2f} %",
    ):  # fmt: skip
        assert expected in text, expected


@pytest.mark.parametrize(
    "changed",
    [{"fingerprint": "other"}, {"images": 100}, {"image_size": 256}, {"labels": "ReaL"}],
    ids=lambda changed: next(iter(changed)),
)
def test_other_images_are_not_paired(weights, right, changed):
    a = weights("a", [row(right[0])], [right[0]])
    values = right[1][: changed.get("images", 101)]
    b = weights("b", [row(values, **changed)], [values])
    lines = suites.side_by_side([suites.read_weights(folder, folder.name) for folder in (a, b)])
    if "image_size" in changed or "labels" in changed:  # another view than the model's own, and another set
        assert lines == []
    else:
        assert lines[0]["cells"][1]["interval"] is None
        assert "not paired" in words(report.write_report([a, b]))


def test_a_folder_of_weights_says_what_it_is_and_no_more_than_it_knows(weights, right):
    """Columns that no row fills are not there; a weights.json of something else is no reason for no page."""
    folder = weights("a", [row(right[0])], [right[0]])
    text = words(report.write_report([folder]))
    assert "mCE" not in text
    assert "Weights Images" not in text
    assert "metrics.jsonl" not in text
    (folder / "weights.json").write_text('{"model": {"name": "<b>", "parameters": 4652008}}')
    assert "<b>, 4.65 M parameters" in words(report.write_report([folder]))
    averaged = weights("b", [row(right[0], weights="ema", corruption_error=0.5)], [right[0]])
    assert "View Weights Images" in words(report.write_report([averaged]))
    assert "mCE, CE" in words(report.write_report([averaged]))


def test_images_that_do_not_count_are_in_no_pair(weights, right):
    values = [np.where(np.arange(101) < 50, np.nan, v) for v in right]
    sides = [suites.read_weights(weights(n, [row(v)], [v]), n) for n, v in zip("ab", values, strict=True)]
    assert suites.side_by_side(sides)[0]["cells"][1]["difference"] == pytest.approx(np.nanmean(values[1]) - np.nanmean(values[0]))


def test_averaged_weights_stand_for_a_model_that_keeps_them(weights, right):
    both = weights("a", [row(right[1], weights="ema"), row(right[0])], [right[1], right[0]])
    sides = [suites.read_weights(both, name) for name in "ab"]
    assert suites.side_by_side(sides)[0]["cells"][0]["row"]["weights"] == "ema"


def test_a_run_beside_weights(make_run, weights, right):
    """The run has an evaluation alone; its rows come from there, and no training is shown."""
    run = make_run()
    content = json.loads((run / "eval" / "digits-validation.json").read_text())
    content["raw"]["calibration"] = calibration.summary(np.eye(10)[np.arange(20) % 10], np.arange(20) % 7, np.arange(20) % 2 == 0)
    content["ema"], content["fingerprint"] = None, "abc"
    (run / "eval" / "digits-validation.json").write_text(json.dumps(content))
    np.savez(run / "eval" / "digits-validation.npz", correct_raw=right[0] > 0)
    same = {"dataset": "digits", "split": "validation", "set": "digits"}
    page = report.write_report([run, weights("w", [row(right[1], **same)], [right[1]])])
    assert "points" in words(page)
    assert 'src="report/reliability-0-light.png"' in page.read_text()
    assert (run / "report" / "reliability-0-dark.png").is_file()
    alone = report.write_report([run])
    assert "half, with the temperature" in words(alone)
    assert 'alt="Accuracy by confidence: 23 % sure, 35 % right."' in alone.read_text().replace("\u00a0", " ")
    assert (run / "report" / "reliability-dark.png").is_file()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"own_view": {}, "rows": [{}]}', '{"own_view": {"image_size": 1, "flip": true}, "rows": [7]}']
)
def test_a_suite_that_cannot_be_read_is_said(weights, right, content):
    folder = weights("a", [row(right[0])], [right[0]])
    (folder / "suite" / "other.json").write_text(content)
    side = suites.read_weights(folder, "a")
    assert len(side.rows) == 1
    assert side.notes[0].startswith("suite/other.json cannot be read and is left out")


def test_weights_that_were_not_evaluated(tmp_path):
    (tmp_path / "weights.json").write_text("{}")
    with pytest.raises(UserError, match="was not evaluated"):
        report.write_report([tmp_path])
