"""Write imagenet_jax.ipynb from imagenet_jax.py: `python notebooks/pair.py`. The script is edited, the notebook is made.

The script is in the percent format: `# %%` opens a code cell, `# %% [markdown]` one of text behind `# `.
"""

import json
import pathlib
import re
from typing import Any

SCRIPT = pathlib.Path(__file__).with_name("imagenet_jax.py")
NOTEBOOK = SCRIPT.with_suffix(".ipynb")


def notebook(script: str) -> dict[str, Any]:
    """The notebook (nbformat 4.5, without outputs) of a percent script that begins with `# %%`."""
    cells: list[dict[str, Any]] = []
    for part in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, _, body = part.partition("\n")
        cell: dict[str, Any] = {"id": f"cell-{len(cells)}", "metadata": {}}
        if kind.strip() == "[markdown]":
            text = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            cell |= {"cell_type": "markdown", "source": text.splitlines(keepends=True)}
        else:
            cell |= {"cell_type": "code", "source": body.strip().splitlines(keepends=True), "execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def text(script: str) -> str:
    """The content of the .ipynb file."""
    return json.dumps(notebook(script), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(text(SCRIPT.read_text("utf-8")), "utf-8")
