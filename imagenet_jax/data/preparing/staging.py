"""The place of a data set in the making: finished shards survive a kill, nothing unfinished looks finished, one process at a time.

VERSION's neighbour `.partial-VERSION/` holds `plan` (what is being made, as a digest), `data/` (the shards) and, for each finished
shard, a file of what went into it. The last act renames `data/` to VERSION.
"""

import contextlib
import fcntl
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from imagenet_jax.errors import UserError


class Partial:
    """`.partial-VERSION/` beside `directory`. What is there of another digest is removed first, with a line that says so."""

    def __init__(self, directory: pathlib.Path, digest: str):
        self.root = directory.with_name(f".partial-{directory.name}")
        self.data = self.root / "data"
        self._directory = directory
        plan = self.root / "plan"
        if plan.is_file() and plan.read_text() == digest:
            return
        if self.root.exists():
            logging.warning("%s is of another input or other options: it is removed, and all is written anew.", self.root)
            shutil.rmtree(self.root)
        self.data.mkdir(parents=True)
        _write_whole(plan, digest)

    def finished(self, file: str) -> dict[str, Any] | None:
        """What was said of that shard when it was finished; None where it was not."""
        try:
            facts = json.loads((self.root / f"{file}.json").read_text())
            return facts["said"] if (self.data / file).stat().st_size == facts["size"] else None
        except FileNotFoundError:
            return None

    def finish(self, file: str, said: dict[str, Any]) -> None:
        """Record that the shard is on the disk, whole."""
        with open(self.data / file, "rb") as shard:
            os.fsync(shard.fileno())  # else a power cut could leave the record without the shard
        _write_whole(self.root / f"{file}.json", json.dumps({"size": (self.data / file).stat().st_size, "said": said}))

    def size(self) -> int:
        """Bytes on the disk so far."""
        return folder_size(self.data)

    def publish(self) -> None:
        """The data set is whole: give it its place."""
        self.data.rename(self._directory)
        shutil.rmtree(self.root)

    def tidy(self) -> None:
        """After an error: leave nothing behind if nothing is worth keeping."""
        if not any(self.root.glob("*.json")):
            shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def alone(family: pathlib.Path, data_dir: pathlib.Path) -> Iterator[None]:
    """Make `family`, a folder below `data_dir`, and keep other prepare commands away: they would write into the same files.

    Raises UserError where it cannot be made, or another process has it.
    """
    try:
        family.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to {family}: {error.strerror}. Name another place with --data_dir.") from None
    descriptor = os.open(family, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process is preparing {family}. Wait for it, or end it first.") from None
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # only where they are empty: after an error
                while family != data_dir:
                    family.rmdir()
                    family = family.parent
    finally:
        os.close(descriptor)


def check_space(data_dir: pathlib.Path, size: float, freed: int) -> None:
    """Raise UserError where the disk is too small for images of `size` bytes, once `freed` bytes are free that are not yet.

    Shuffling takes no space; 5 % and 16 MB are for what lies around the images.
    """
    free = shutil.disk_usage(data_dir).free + freed
    needed = int(size * 1.05) + 16 * 10**6
    if free < needed:
        raise UserError(
            f"{data_dir} has {free / 1e9:,.2f} GB free; the data set needs {needed / 1e9:,.2f} GB there. "
            "Free some, or use another disk with --data_dir."
        )


def folder_size(folder: pathlib.Path) -> int:
    """Bytes of all files below `folder`; 0 where it is not there."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _write_whole(path: pathlib.Path, text: str) -> None:
    """Write the file so that it is either there in full or not at all."""
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
