"""A source whose encoded images stay in memory after they were first read. Whether they fit is asked before anything is kept."""

import dataclasses
import os
import pathlib
import sys
from typing import Any

from imagenet_jax.data.reading.records import Record, Records, Source
from imagenet_jax.errors import UserError

HEADROOM = 1.1
OVERHEAD = 400  # bytes that Python needs for a record besides its image: tuple, name, number, place in a dict
# Control groups of version 2, and 1: limit, use, and what memory.stat calls the files in that use, which may go at any time.
NAMES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def cached(*sources: Source, processes: int = 1) -> tuple[Source, ...]:
    """The same sources, keeping each record once it was read; each of `processes` that they are sent to keeps its own copy.

    Raises UserError where all of them, a tenth added, take more memory than is available now.
    """
    needed = round(processes * sum(s.nbytes * HEADROOM + len(s) * OVERHEAD for s in sources))
    available = available_memory()
    if needed > available:
        copies = f" in {processes} processes" if processes > 1 else ""
        raise UserError(
            f"data.cache: {' and '.join(f'{s.dataset} {s.split}' for s in sources)} take {needed / 1e9:,.2f} GB of memory{copies}, "
            f"{available / 1e9:,.2f} GB are available. Use --config.data.cache=False, or a data set re-encoded at a smaller size."
        )
    return tuple(dataclasses.replace(source, records=CachedRecords(source.records)) for source in sources)


class CachedRecords:
    """len() and [i] -> Record, read once; pickled, it starts empty."""

    def __init__(self, records: Records):
        self._records = records
        self._kept: dict[int, Record] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        record = self._kept.get(index)
        if record is None:
            record = self._kept[index] = self._records[index]  # two threads may both read it; one copy stays
        return record

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedRecords, (self._records,)


def available_memory(system: pathlib.Path = pathlib.Path("/")) -> int:
    """Bytes that this process may still take: of the machine, and of every control group (container, batch job) that holds it."""
    found = [_machine(system)]
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        kind = "memory" if "memory" in controllers.split(",") else controllers
        if kind in NAMES:
            root = system / "sys/fs/cgroup" / kind
            group = root / path.lstrip("/")
            found += [_left(folder, *NAMES[kind]) for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return max(0, min(found))


def _left(group: pathlib.Path, limit: str, used: str, files: str) -> int:
    try:
        room = int((group / limit).read_text()) - int((group / used).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return room + int(stat.get(files, 0))
    except (OSError, ValueError):  # no limit here: "max", or no such group
        return sys.maxsize


def _machine(system: pathlib.Path) -> int:
    try:
        lines = (system / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # macOS counts no available memory: half of what there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
