"""A source whose encoded images stay in memory after they were first read. Whether they fit is asked before anything is kept."""

import dataclasses
import os
import pathlib
from typing import Any

from imagenet_jax.data.records import Record, Records, Source
from imagenet_jax.errors import UserError

HEADROOM = 1.1
OVERHEAD = 400  # bytes that Python needs for a record besides its image: tuple, name, number, place in a dict
GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (  # version 2, and 1
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


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


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, and of the container that it runs in."""
    found = [_machine()]
    for limit, used in GROUPS:
        try:
            numbers = [int(pathlib.Path(path).read_text()) for path in (limit, used)]
        except (OSError, ValueError):  # no such group, or "max"
            continue
        found.append(numbers[0] - numbers[1])
    return max(0, min(found))


def _machine() -> int:
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # macOS counts no available memory: half of what there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
