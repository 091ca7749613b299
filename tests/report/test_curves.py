import numpy as np
import pytest

from imagenet_jax.report import curves, plots, read


def test_smoothing_is_a_centred_mean_that_ignores_nan():
    y = np.arange(400.0)
    y[200] = np.nan
    means, window = curves.smooth(y)
    assert window == 9
    np.testing.assert_allclose(means[50:150], y[50:150])
    assert means[0] == y[:5].mean()
    assert means[200] == 200
    few, one = curves.smooth(y[:99])
    assert one == 1
    assert few is not None
    assert (few == y[:99]).all()


def test_one_record_makes_a_sentence_not_a_plot(make_run):
    work = make_run()
    lines = (work / "metrics.jsonl").read_text().splitlines()
    (work / "metrics.jsonl").write_text("\n".join(lines[:3]))
    drawn = {c.title: c for c in curves.draw_curves([read.read_run(work, "x")], work)}
    assert all(c.picture is None for c in drawn.values())
    assert "training: 2 at epoch 2.227" in drawn["Loss"].caption
    assert not list(work.glob("*.png"))


def test_no_records_make_sentences(make_run):
    work = make_run()
    (work / "metrics.jsonl").unlink()
    for curve in curves.draw_curves([read.read_run(work, "x")], work):
        assert curve.picture is None
        assert curve.caption.startswith("Nothing to draw")


def test_missing_ema_and_missing_evaluations_are_said(make_run):
    work = make_run(ema=False)
    loss = curves.draw_curves([read.read_run(work, "x")], work)[0]
    assert loss.picture
    assert "No averaged weights were evaluated." in loss.caption
    lines = [line for line in (work / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
    (work / "metrics.jsonl").write_text("\n".join(lines))
    loss = curves.draw_curves([read.read_run(work, "x")], work)[0]
    assert loss.picture
    assert "No evaluation during training has been recorded." in loss.caption


def test_several_runs_lie_over_one_another_under_their_own_colours(make_run, monkeypatch):
    saved = {}
    monkeypatch.setattr(plots, "save_curves", lambda panels, x, folder, stem: saved.setdefault(stem, panels))
    runs = [read.read_run(make_run("a"), "a"), read.read_run(make_run("b", ema=False), "b")]
    curves.draw_curves(runs, runs[0].path)
    assert [(s.label, s.colour, s.style) for s in saved["eval-loss"][0].series] == [
        ("a", 0, "marked"), ("a, averaged", 0, "dashed"), ("b", 1, "marked"),
    ]  # fmt: skip
    assert [s.colour for s in saved["train-loss"][0].series] == [0, 1]


@pytest.mark.parametrize(("last", "log"), [(0.001, True), (0.5, False)])
def test_a_loss_that_falls_a_hundredfold_is_drawn_on_a_log_scale(make_run, monkeypatch, last, log):
    saved = {}
    monkeypatch.setattr(plots, "save_curves", lambda panels, x, folder, stem: saved.setdefault(stem, panels))
    run = read.read_run(make_run(), "x")
    run.train["loss"][-1] = last
    curves.draw_curves([run], run.path)
    assert saved["loss"][0].log == log
