"""Draw series and matrices as PNG files, once for a light page and once for a dark one.

Only the object-oriented API of matplotlib is used: no pyplot, no global state, no window. Titles and captions belong
to the page; what is drawn here knows nothing of runs.
"""

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Generator, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import font_manager, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

DPI = 96  # CSS pixels an inch; pictures are saved at DENSITY times as many
DENSITY = 2
WIDTH = 500  # CSS pixels of a curve: two beside one another on a desktop, still readable shrunk to a telephone
FONTS = ("Inter", "Helvetica Neue", "Segoe UI", "Roboto", "Arial", "Liberation Sans", "Noto Sans")
MARKERS = "os^DvPX*"  # together with the colour, so that nothing is told by colour alone
DOTS = 350  # cells of a matrix picture a side: more, and a single confusion is too small a dot to be seen
NAMED_CLASSES = 60  # a larger matrix has indices at its axes


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of one scheme; the same values stand in template.html."""

    name: str
    page: str
    text: str
    muted: str
    grid: str
    faint: str
    scale: tuple[str, ...]
    colours: tuple[str, ...]


THEMES = (
    Theme("light", "#ffffff", "#1c2024", "#5c646d", "#e4e7eb", "#8b949e",
          ("#ffffff", "#a9c8e8", "#6f9fd0", "#1f5fa8", "#0b2a55"),
          ("#1f5fa8", "#c2500a", "#1a7f5a", "#8a3ffc", "#b01e5b", "#6b5b00", "#00738f", "#555d66")),
    Theme("dark", "#15181c", "#e6e9ec", "#9aa3ad", "#2c3238", "#7d8792",
          ("#15181c", "#234a78", "#2f6cb0", "#7fb4ee", "#eaf4ff"),
          ("#6cabf5", "#f0904a", "#4fc795", "#bf98ff", "#f5799f", "#d3bd4c", "#4cc3de", "#b4bcc5")),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Series:
    """One line: `x` and `y` are (points,) float64, nan leaves a gap; `colour` indexes the theme's colours, None is grey."""

    label: str
    x: np.ndarray
    y: np.ndarray
    colour: int | None = None
    style: Literal["line", "cloud", "marked", "dashed"] = "line"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes. `share` draws y in percent and keeps it within 0 and 1."""

    ylabel: str
    series: Sequence[Series]
    share: bool = False
    log: bool = False
    from_zero: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """A saved pair `<stem>-light.png`, `<stem>-dark.png`, and its size in CSS pixels."""

    stem: str
    width: int
    height: int


def save_curves(panels: Sequence[Panel], xlabel: str, folder: pathlib.Path, stem: str) -> Picture:
    """Draw the panels above one another over a common x axis. Legend: the labelled series of the first panel."""
    texts = [_legend_text(s.label) for s in panels[0].series if s.label]
    columns = _columns(texts)
    height = 270 + 120 * (len(panels) - 1) + 20 * (-(-len(texts) // columns) if len(texts) > 1 else 0)
    for theme in THEMES:
        figure = _figure(WIDTH, height, theme)
        ratios = [2.2] + [1.0] * (len(panels) - 1)
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for panel, ax in zip(panels, axes, strict=True):
            _draw_panel(ax, panel, theme, below=panel is not panels[0])
        _label(axes[-1].set_xlabel, xlabel, theme)
        figure.align_ylabels(axes)
        if len(texts) > 1:
            handles = [line for line in axes[0].get_lines() if line.get_gid() == "labelled"]
            _legend(figure, handles, texts, columns, theme)
        _save(figure, folder / f"{stem}-{theme.name}.png")
    return Picture(stem, WIDTH, height)


def save_confusion(matrix: np.ndarray, names: Sequence[str], folder: pathlib.Path, stem: str) -> Picture:
    """Draw a (classes, classes) count matrix as shares of its rows; names at the axes up to 60 classes, else indices."""
    classes = len(matrix)
    block = -(-classes // DOTS)
    shares = pool(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), block)
    named = classes <= NAMED_CLASSES
    width, height = (760, 720) if named else (680, 600)
    for theme in THEMES:
        figure = _figure(width, height, theme)
        ax = figure.subplots()
        colours = LinearSegmentedColormap.from_list("page", theme.scale)
        # Linear colours would hide a confusion of 2 % of a class.
        extent = (-0.5, len(shares) * block - 0.5, len(shares) * block - 0.5, -0.5)
        norm = PowerNorm(0.4, 0, 1)
        image = ax.imshow(shares, cmap=colours, norm=norm, interpolation="nearest", extent=extent)
        ax.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
        _plain_axes(ax, theme)
        if named:
            labels = [_legend_text(name) for name in names]
            ax.set_xticks(range(classes), labels, rotation=90, parse_math=False)
            ax.set_yticks(range(classes), labels, parse_math=False)
        for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
            text.set_fontproperties(_font(7 if named else 9))
        _label(ax.set_xlabel, "predicted class" if named else "predicted class (index)", theme)
        _label(ax.set_ylabel, "true class" if named else "true class (index)", theme)
        bar = figure.colorbar(image, ax=ax, shrink=0.6, aspect=28, pad=0.02, ticks=[0, 0.02, 0.1, 0.25, 0.5, 1])
        bar.outline.set_visible(False)
        _plain_axes(bar.ax, theme)
        bar.ax.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0, symbol=" %"))
        _label(bar.set_label, "share of the true class", theme)
        _save(figure, folder / f"{stem}-{theme.name}.png")
    return Picture(stem, width, height)


def pool(matrix: np.ndarray, block: int) -> np.ndarray:
    """The largest value of each block x block square of an (n, n) matrix, edges filled up with 0: (m, m), m = ceil(n / block)."""
    size = -(-len(matrix) // block)
    filled = np.zeros((size * block, size * block), matrix.dtype)
    filled[: len(matrix), : len(matrix)] = matrix
    return filled.reshape(size, block, size, block).max(axis=(1, 3))


def _columns(texts: Sequence[str]) -> int:
    """All beside one another where they fit, in the font that is there; else two columns, which keeps pairs together; else one."""
    figure = _figure(WIDTH, 100, THEMES[0])
    with _no_glyph_is_missed():
        for columns in (len(texts), 2):
            legend = _legend(figure, [Line2D([], []) for _ in texts], texts, columns, THEMES[0])
            if texts and legend.get_window_extent().width <= figure.bbox.width:
                return columns
    return 1


def _legend(figure: Figure, handles: Sequence[Any], texts: Sequence[str], columns: int, theme: Theme) -> Legend:
    """To be read row by row, which matplotlib fills column by column."""
    order = [i for column in range(columns) for i in range(column, len(texts), columns)]
    legend = figure.legend(
        [handles[i] for i in order], [texts[i] for i in order], loc="outside upper left", ncols=columns,
        frameon=False, borderaxespad=0.2, handlelength=2.2, columnspacing=1.4, prop=_font(9),
    )  # fmt: skip
    for text in legend.get_texts():
        text.set(color=theme.text, parse_math=False)
    return legend


def _draw_panel(ax: Axes, panel: Panel, theme: Theme, below: bool) -> None:
    for series in panel.series:
        colour = theme.faint if series.colour is None else theme.colours[series.colour % len(theme.colours)]
        look: dict[str, Any] = {"color": colour, "linewidth": 1.6, "solid_capstyle": "round"}
        if series.style == "cloud":
            look |= {"linewidth": 0.7, "alpha": 0.4}
        elif series.style in ("marked", "dashed"):
            marker = MARKERS[(series.colour or 0) % len(MARKERS)]
            look |= {"marker": marker, "markersize": 4.2, "markevery": max(1, len(series.x) // 12)}
        if series.style == "dashed":
            look |= {"linestyle": (0, (4, 2)), "markerfacecolor": theme.page}
        ax.plot(series.x, series.y, gid="labelled" if series.label else None, **look)
    _plain_axes(ax, theme)
    ax.grid(axis="y", color=theme.grid, linewidth=0.8)
    ax.set_axisbelow(True)
    _label(ax.set_ylabel, panel.ylabel, theme)
    if panel.log:
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(ticker.NullFormatter())
    elif not panel.share:
        ax.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
        if panel.from_zero:
            ax.set_ylim(bottom=0)
    if panel.share:
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 0), min(high, 1.02))
        ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(7, steps=[1, 2, 5, 10]))
    if not panel.log:
        ax.yaxis.set_major_locator(ticker.MaxNLocator(4 if below else 6, steps=[1, 2, 2.5, 5, 10]))
    ax.margins(x=0.02)


def _figure(width: int, height: int, theme: Theme) -> Figure:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI * DENSITY, layout="constrained", facecolor=theme.page)
    FigureCanvasAgg(figure)
    return figure


def _plain_axes(ax: Axes, theme: Theme) -> None:
    ax.set_facecolor(theme.page)
    for spine in ax.spines.values():
        spine.set(visible=False)
    ax.spines["bottom"].set(visible=True, color=theme.muted, linewidth=0.8)
    ax.tick_params(which="both", length=0, colors=theme.muted, pad=5, labelfontfamily=_families(), labelsize=9)


def _label(setter: Any, text: str, theme: Theme) -> None:
    setter(text, color=theme.muted, fontproperties=_font(9))


def _legend_text(name: str) -> str:
    """A name from outside, fit for a picture: one line, short, and not hidden as matplotlib hides a leading `_`."""
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    name = name if len(name) <= 28 else name[:27] + "…"
    return f" {name}" if name.startswith("_") else name


def _families() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [*[name for name in FONTS if name in installed][:1], "DejaVu Sans"]


def _font(size: float) -> font_manager.FontProperties:
    return font_manager.FontProperties(family=_families(), size=size)


def _save(figure: Figure, path: pathlib.Path) -> None:
    with _no_glyph_is_missed():
        figure.savefig(path, metadata={"Software": None})


@contextlib.contextmanager
def _no_glyph_is_missed() -> Generator[None]:
    """A class name in a script that no installed font has: boxes in the picture, the real name on the page."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
