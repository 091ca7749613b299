"""`bench feed`: does the loader keep up with an accelerator that takes so many images a second?"""

import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from imagenet_jax.bench.ours import VIEW
from imagenet_jax.data.augmentation import augment
from imagenet_jax.data.batches import loader
from imagenet_jax.data.reading.records import Source

WARM = 2  # batches before the clock starts, which pay for imports and for filling the prefetch buffer
REPORTS = 10  # over the time


class Fed(NamedTuple):
    """What the consumer saw since the start."""

    seconds: float = 0.0
    images: int = 0
    waited: float = 0.0  # seconds that it waited for a batch
    resident: int = 0  # bytes of memory of this process and its workers, now


def feed(
    source: Source,
    pixels: loader.Pixels,
    *,
    rate: float,
    seconds: float,
    batch_size: int,
    threads: int,
    processes: int,
    show: Callable[[Fed, Fed], None],
) -> list[Fed]:
    """Take batches from the training loader as a device does that needs batch_size / rate seconds for each.

    It asks for a batch, computes (sleeps) for that long, and asks again: time lost in waiting is not made up for. Returns the state
    at the start and at each tenth of `seconds`; `show` gets each two in a row as they come.
    """
    batches = loader.train_batches(
        source, pixels, augment.chain(VIEW), seed=0, batch_size=batch_size, rows=loader.Rows(0, batch_size),
        start=0, stop=sys.maxsize // batch_size, threads=threads, processes=processes,
    )  # fmt: skip
    for _ in range(WARM):
        next(batches)
    found = [Fed(resident=resident_bytes())]
    start, images, waited = time.perf_counter(), 0, 0.0
    while len(found) <= REPORTS:
        asked = time.perf_counter()
        images += len(next(batches)["image"])
        got = time.perf_counter()
        waited += got - asked
        time.sleep(max(0.0, got + batch_size / rate - time.perf_counter()))
        elapsed = time.perf_counter() - start
        if elapsed >= seconds * len(found) / REPORTS:
            found.append(Fed(elapsed, images, waited, resident_bytes()))
            show(*found[-2:])
    batches.close()
    return found


def resident_bytes() -> int:
    """Memory of this process and its workers that is in RAM now (not its peak); what they share is counted in each."""
    return sum(map(_resident, [os.getpid(), *(child.pid or 0 for child in multiprocessing.active_children())]))


def _resident(pid: int) -> int:
    statm = pathlib.Path(f"/proc/{pid}/statm")  # Linux
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return 1024 * int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True).stdout)
