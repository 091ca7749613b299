"""What a run writes while it goes: metrics.jsonl, one record a line, the same numbers for TensorBoard, and the terminal.

metrics.jsonl is the source. On a resume it is cut back to the restored step and TensorBoard's files are written anew from it, so
that neither ever shows a step twice.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

from imagenet_jax.errors import UserError


class Journal:
    """Appends records to workdir/metrics.jsonl and workdir/tensorboard, starting from those of the way to `step`.

    An evaluation at `step` itself is left out: the run that goes on from there evaluates again. `silent`, as in all processes of a
    run but one, it writes nothing.
    """

    def __init__(self, workdir: pathlib.Path, step: int, *, silent: bool = False):
        self._silent = silent
        if silent:
            return
        self._path = workdir / "metrics.jsonl"
        kept = [r for r in read(self._path) if r["step"] < step or (r["step"] == step and r["kind"] != "eval")]
        draft = self._path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(r) + "\n" for r in kept))
        os.replace(draft, self._path)
        self._file = self._path.open("a")
        shutil.rmtree(workdir / "tensorboard", ignore_errors=True)
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"))
        for record in kept:
            self._plot(record)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._silent:
            self._file.close()
            self._tensorboard.close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record: {"kind", "step", "time", numbers ...}. On disk when this returns."""
        if self._silent:
            return
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self._plot(record)

    def _plot(self, record: dict[str, Any]) -> None:
        prefix = "/".join(str(record[k]) for k in ("kind", "split", "weights") if k in record)
        for key, value in record.items():
            if key not in ("step", "time") and isinstance(value, int | float):
                self._tensorboard.add_scalar(f"{prefix}/{key}", value, record["step"], record["time"])


class Console:
    """What is seen in the terminal: a bar where it is one, and one line a log interval everywhere."""

    def __init__(self, start: int, stop: int, total: int):
        self._said: set[str] = set()
        self._bar = tqdm(
            total=stop, initial=start, unit="step", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty(),
            desc=f"of {total}" if stop < total else None,
        )  # fmt: skip

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def tick(self) -> None:
        """One more step is done."""
        self._bar.update()

    def once(self, line: str) -> None:
        """Print a line that was not printed before."""
        if line not in self._said:
            self._said.add(line)
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        try:
            self._bar.write(line, file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:  # `| head`, or a terminal that went away: no reason to lose a run; metrics.jsonl has it all
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a line that a crash cut short or a disk damaged is left out."""
    records = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):  # of JSON, and of bytes that are no text
            record = json.loads(line)
            if isinstance(record, dict) and {"kind", "step"} <= record.keys():
                records.append(record)
    return records


def write_json(path: pathlib.Path, content: Any) -> None:
    """Write indented JSON so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(draft, path)


def needed_json(path: pathlib.Path, absent: str) -> Any:
    """The content of a JSON file. Raises UserError where it is not valid, and with the text `absent` where none can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{absent} ({path.name}: {error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file, or None where there is none or it is not valid."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
