"""The picture of `bench input`: a bar a row, ours in colour, whiskers from the slowest to the fastest round."""

import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from imagenet_jax.bench.compare import is_close
from imagenet_jax.bench.input import MEASURED

OURS, INK, THEIRS, TEXT, MUTED, GRID = "#4a8fd8", "#1f5fa8", "#b4bcc5", "#1c2024", "#5c646d", "#e4e7eb"
STRIPES = "////"
ROW = 0.34  # inches a bar
WIDTH = 10.5


def save(report: dict[str, Any], path: pathlib.Path) -> None:
    """Draw a PNG with a panel for each number of cores, fastest on top."""
    rows = shown(report["rows"])
    cores = sorted({row["cores"] for row in rows})
    panels = [[row for row in rows if row["cores"] == count] for count in cores]
    heights = [max(len(panel), 1) + 1.4 for panel in panels] or [2.0]
    figure = Figure(figsize=(WIDTH, ROW * sum(heights) + 1.2), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(len(panels), 1), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, panel, count in zip(axes, panels, cores, strict=False):
        _panel(ax, panel)
        ax.set_title(f"{count} core{'s' if count > 1 else ''}", loc="left", color=TEXT, fontsize=10, fontweight="bold")
    settings, data = report["settings"], report["data"]["original"]
    axes[-1].set_xlabel(
        f"images/s, training view at {settings['size']} px of {data['images']:,} encoded images in memory: median of "
        f"{settings['rounds']} interleaved rounds, whiskers min-max. {report['machine']['cpu']}.\n"
        "dB: PSNR to Pillow's full decode and antialiased bilinear, median over crops that shrink (over all where none does).",
        color=MUTED, fontsize=8.5, labelpad=8,
    )  # fmt: skip
    looks = {"ours, antialiased": (OURS, ""), "ours, not antialiased": (OURS, STRIPES),
             "others, antialiased": (THEIRS, ""), "others, not antialiased": (THEIRS, STRIPES)}  # fmt: skip
    patches = [Patch(facecolor=c, hatch=h, edgecolor="white", linewidth=0, label=name) for name, (c, h) in looks.items()]
    figure.legend(handles=patches, loc="outside upper left", ncols=4, frameon=False, fontsize=8.5, labelcolor=TEXT)
    figure.savefig(path, metadata={"Software": None})


def shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the picture has room for, slowest first: others, and the fastest engine of ours for each kind of files and of resize.

    An antialiased one must be close to Pillow. Rows without pixels are left to the table.
    """
    kept: dict[tuple, dict[str, Any]] = {}
    measured = [row for row in rows if row["status"] == MEASURED and row["pixels"]]
    for row in sorted(measured, key=lambda row: row["median"]):
        if not _is_ours(row) or not row["antialias"] or is_close(row):
            kept[row["contestant"], row["data"], row["antialias"], row["cores"]] = row
    return sorted(kept.values(), key=lambda row: row["median"])


def _panel(ax: Axes, rows: Sequence[dict[str, Any]]) -> None:
    places = range(len(rows))
    medians = [row["median"] for row in rows]
    spread = [[row["median"] - row["min"] for row in rows], [row["max"] - row["median"] for row in rows]]
    bars = ax.barh(places, medians, height=0.68, color=[OURS if _is_ours(row) else THEIRS for row in rows])
    for bar, row in zip(bars, rows, strict=True):
        if not row["antialias"]:
            bar.set(hatch=STRIPES, edgecolor="white", linewidth=0)
    ax.errorbar(medians, places, xerr=spread, fmt="none", ecolor=TEXT, elinewidth=1, capsize=2.5)
    for place, row in enumerate(rows):
        ax.annotate(
            f"{row['median']:,.0f}", (row["max"], place), (5, 0), textcoords="offset points", va="center", fontsize=8.5, color=TEXT
        )
    ax.set_yticks(places, [_label(row) for row in rows], parse_math=False)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlim(0, 1.1 * max((row["max"] for row in rows), default=1.0))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.tick_params(length=0, colors=MUTED, labelsize=8.5)
    for tick, row in zip(ax.get_yticklabels(), rows, strict=True):
        tick.set(color=INK if _is_ours(row) else TEXT, fontweight="bold" if _is_ours(row) else "normal")
    ax.grid(axis="x", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _is_ours(row: dict[str, Any]) -> bool:
    return row["contestant"] == "ours"


def _label(row: dict[str, Any]) -> str:
    quality = row["quality"]
    if quality is None:
        return row["label"]
    value = quality["shrinking_median"] if quality["shrinking_n"] else quality["median"]
    return f"{row['label']} · {'identical' if value >= 99 else f'{value:.0f} dB'}"
