import numpy as np
import pytest
from PIL import Image

from imagenet_jax.report import plots


def series(label, colour=0, style="line"):
    return plots.Series(label, np.arange(5.0), np.array([1, np.nan, 3, 2, 1]), colour, style)


def test_curves_are_saved_for_both_schemes_at_double_density(tmp_path):
    panel = plots.Panel("loss", [series("a"), series("", style="cloud"), series("b", 9, "dashed")])
    picture = plots.save_curves([panel, plots.Panel("share", [series("")], share=True)], "epoch", tmp_path, "loss")
    corner = {}
    for theme in ("light", "dark"):
        with Image.open(tmp_path / f"loss-{theme}.png") as image:
            assert image.size == (2 * picture.width, 2 * picture.height)
            corner[theme] = image.convert("RGB").getpixel((0, 0))
    assert corner == {"light": (255, 255, 255), "dark": (0x15, 0x18, 0x1C)}


@pytest.mark.parametrize("names", [["W" * 12] * 3, ["W" * 28] * 3, ["a", "b", "c"]], ids=["two columns", "one column", "a row"])
def test_a_legend_is_not_cut_off(tmp_path, names):
    plots.save_curves([plots.Panel("loss", [series(name, i) for i, name in enumerate(names)])], "epoch", tmp_path, "loss")
    with Image.open(tmp_path / "loss-light.png") as image:
        assert np.asarray(image.convert("L"))[:120, -4:].min() == 255


def test_a_legend_is_read_row_by_row(tmp_path):
    figure = plots._figure(plots.WIDTH, 100, plots.THEMES[0])
    legend = plots._legend(figure, [plots.Line2D([], []) for _ in range(3)], ["a", "b", "c"], 2, plots.THEMES[0])
    assert [text.get_text() for text in legend.get_texts()] == ["a", "c", "b"]  # matplotlib fills the first column with two


def test_names_from_outside_are_drawn_as_they_are(tmp_path):
    names = ["$\\frac{", "_hidden", "two\nlines", "犬", "x" * 200]
    panel = plots.Panel("loss", [series(name, i) for i, name in enumerate(names)])
    plots.save_curves([panel], "epoch", tmp_path, "loss")
    plots.save_confusion(np.eye(5, dtype=np.int64), names, tmp_path, "confusion")
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_pooling_keeps_every_single_confusion():
    matrix = np.zeros((1000, 1000))
    matrix[999, 4] = 0.02
    pooled = plots.pool(matrix, 3)
    assert pooled.shape == (334, 334)
    assert np.argwhere(pooled).tolist() == [[333, 1]]
    assert plots.pool(matrix, 1).shape == matrix.shape


def test_a_thousand_classes_make_one_picture(tmp_path):
    picture = plots.save_confusion(np.eye(1000, dtype=np.int64), ["x"] * 1000, tmp_path, "confusion")
    assert (tmp_path / "confusion-dark.png").is_file()
    assert picture.width <= 760


def test_an_empty_row_is_no_division_by_zero(tmp_path):
    plots.save_confusion(np.zeros((30, 30), np.int64), ["x"] * 30, tmp_path, "confusion")
