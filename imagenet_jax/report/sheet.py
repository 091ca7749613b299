"""A contact sheet: small pictures in rows, each with its caption, as one PNG."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE, MARGIN, LINE = 128, 8, 15  # pixels
COLUMNS = 8
MOST = 400  # pictures on a sheet, about 9 MB


def write_sheet(path: pathlib.Path, pictures: Sequence[np.ndarray], captions: Sequence[tuple[str, str]]) -> None:
    """Write at most `MOST` pictures, uint8 (size, size, 3), with two lines of text each; long lines are cut."""
    columns = min(COLUMNS, len(pictures))
    cell_width, cell_height = SIDE + MARGIN, SIDE + 2 * LINE + MARGIN
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for i, (picture, lines) in enumerate(zip(pictures, captions, strict=True)):
        x, y = MARGIN + i % columns * cell_width, MARGIN + i // columns * cell_height
        sheet.paste(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
        for row, text in enumerate(lines):
            draw.text((x, y + SIDE + 1 + row * LINE), _cut(text, draw, font), "black", font)
    sheet.save(path, format="PNG")


def _cut(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the text as fits below a picture; what cannot be printed is escaped."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    if draw.textlength(text[:SIDE], font) <= SIDE:
        return text
    while draw.textlength(text[:SIDE] + "…", font) > SIDE:
        text = text[:SIDE][:-1]
    return text + "…"
