"""The results of `bench input` as text for the terminal."""

from collections.abc import Sequence
from typing import Any

from imagenet_jax.bench.input import MEASURED

STEPS = ("read", "crop", "resize", "render", "rest")


def text(report: dict[str, Any]) -> str:
    """Rates and quality by cores, the time split, the comparisons. `report` is what the JSON file holds."""
    settings, machine, data = report["settings"], report["machine"], report["data"]["original"]
    head = (
        f"Training view at {settings['size']} px, batches of {settings['batch_size']}, {data['images']:,} images of "
        f"{data['dataset']} ({data['bytes_an_image'] / 1000:.0f} KB each), encoded bytes in memory.\n"
        f"{machine['cpu']}{'' if report['pinned'] else ' (processes NOT pinned to cores)'}, "
        f"load {machine['load_before']:.1f} before the start; "
        f"{settings['rounds']} interleaved rounds of {settings['seconds']:g} s a row.\n"
        "PSNR in dB to Pillow's full decode and antialiased bilinear, median and 5th percentile: all crops | crops that shrink."
    )
    return "\n\n".join([head, _rates(report["rows"]), _split(report["split"]), _comparisons(report["comparisons"])])


def _rates(rows: Sequence[dict[str, Any]]) -> str:
    lines: list[tuple[str, ...]] = [("cores", "row", "antialiased", "img/s median [min-max]", "PSNR all", "PSNR shrinking")]
    for row in rows:
        antialias = "-" if not row["pixels"] else "yes" if row["antialias"] else "no"
        first = (str(row["cores"]), f"{row['label']} {_version(row)}", antialias)
        if row["status"] != MEASURED:
            lines.append((*first, _short(row["status"])))
            continue
        rate = f"{row['median']:,.0f} [{row['min']:,.0f}-{row['max']:,.0f}]"
        quality = row["quality"] or {}
        lines.append((*first, rate, _decibels(quality, ""), _decibels(quality, "shrinking_")))
    return columns(lines)


def _version(row: dict[str, Any]) -> str:
    return row["engine_version"] if row["contestant"] == "ours" else row.get("version", "")


def _decibels(quality: dict[str, Any], prefix: str) -> str:
    median = quality.get(f"{prefix}median")
    return "-" if median is None else f"{median:.1f} {quality[f'{prefix}p5']:.1f}"


def _split(found: Sequence[dict[str, Any]]) -> str:
    lines: list[tuple[str, ...]] = [("one core, us an image", "antialiased", *STEPS, "all")]
    for row in found:
        first = (row["label"], "yes" if row["antialias"] else "no")
        spent = row.get("microseconds")
        if spent is None:
            lines.append((*first, _short(row["status"])))
            continue
        values = [spent.get(step, 0.0) for step in STEPS]
        lines.append((*first, *(f"{value:,.0f}" for value in (*values, sum(values)))))
    note = (
        "read: the record from its file; crop: decoding what the view needs, in colours; resize: and mirroring, into the batch; "
        "render: header and view; rest: keys, handing over, waiting."
    )
    return f"{columns(lines)}\n{note}"


def _comparisons(found: Sequence[dict[str, Any]]) -> str:
    lines: list[tuple[str, ...]] = [("ours / theirs", "ratio [90 % interval]", "wanted", "which")]
    for row in found:
        if row["status"] == MEASURED:
            value, which = f"{row['ratio']:.2f} [{row['low']:.2f}-{row['high']:.2f}]", f"{row['ours']} / {row['theirs']}"
        else:
            value, which = "-", _short(row["status"])
        lines.append((row["comparison"], value, "-" if row["wanted"] is None else f"{row['wanted']:g}", which))
    return columns(lines)


def _short(status: str) -> str:
    """One printable line; the JSON file has all of it."""
    line = " ".join("".join(c if c.isprintable() else " " for c in status).split())
    return line if len(line) <= 100 else f"{line[:99]}…"


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Cells padded to the widest of their column, two blanks apart; shorter lines end early."""
    widths = [max(len(line[i]) for line in lines if i < len(line) - 1 or len(line) == len(lines[0])) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(widths[i]) for i, cell in enumerate(line)).rstrip() for line in lines)
