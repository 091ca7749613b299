"""Byte ranges of many files, local or remote, from any thread. Local files stay open; pickled, they are opened anew."""

import os
import resource
import threading
from collections.abc import Sequence
from typing import Any

from imagenet_jax.data.storage import remote
from imagenet_jax.errors import UserError

SPARE = 256  # open files that the rest of the process may need
MANY = (
    1 << 16,
    10_240,
)  # open files to ask for: shells start with 1,024 or 256, ImageNet has 1,024 shards


class Files:
    """`read(i, offset, size)` of file i."""

    def __init__(self, paths: Sequence[str]):
        self.paths = list(paths)
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()
        allow_open_files(len(self.paths))

    def read(self, i: int, offset: int, size: int) -> bytes:
        """`size` bytes. Raises ValueError where the file ends before."""
        if "://" in self.paths[i]:
            return remote.read(self.paths[i], offset, size)
        descriptor = self._open.get(i)
        if descriptor is None:
            descriptor = self._opened(i)
        data = os.pread(descriptor, size, offset)
        while len(data) < size:  # the kernel gives at most 2 GB at once
            more = os.pread(descriptor, size - len(data), offset + len(data))
            if not more:
                raise ValueError(f"{self.paths[i]} ends before byte {offset + size:,}")
            data += more
        return data

    def _opened(self, i: int) -> int:
        with self._lock:
            if i not in self._open:
                descriptor = os.open(self.paths[i], os.O_RDONLY | os.O_CLOEXEC)
                if hasattr(os, "posix_fadvise"):  # no reading ahead: the next read is elsewhere
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                self._open[i] = descriptor
            return self._open[i]

    def close(self, i: int) -> None:
        """Close file i where it is open; a later read opens it again. No other thread may be reading it."""
        with self._lock:
            if (descriptor := self._open.pop(i, None)) is not None:
                os.close(descriptor)

    def __del__(self) -> None:
        for i in list(self._open):
            self.close(i)

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["paths"])


def allow_open_files(number: int) -> None:
    """Raise this process's own limit of open files as far as it goes. Raises UserError where `number` more do not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    for wanted in MANY:
        target = wanted if hard == unlimited else min(wanted, hard)
        if soft == unlimited or soft >= target:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            break
        except (ValueError, OSError):  # macOS says "unlimited" and has a limit
            continue
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != unlimited and soft < number + SPARE:
        raise UserError(f"The data set has {number:,} files; this process may open {soft:,}. Raise it: ulimit -n {number + SPARE}")
