"""Which images there are and where their bytes lie, in columns instead of objects, before any of them is read.

A row takes 32 bytes and its name as many as it has letters: 57 bytes an image of ImageNet-21K, 117 for the moment in which names
are held against each other (peak resident memory, 200,000 images). 14 million images are listed in 0.8 GB, with a peak of 1.7.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np
from tensorflow_datasets.core import hashing

from imagenet_jax.errors import UserError


class Entry(NamedTuple):
    """One image, not read yet. `name` is unique in its split and is stored with it."""

    name: str
    label: str  # class name
    path: str  # the file that holds the bytes: the image's own, or a tar
    offset: int
    size: int  # bytes

    def read(self) -> bytes:
        """The bytes; fewer than `size` where the file shrank meanwhile."""
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.offset)
            return file.read(self.size)


_PACKED = struct.Struct("<qqqii")
_ROW = np.dtype([("name", "<i8"), ("offset", "<i8"), ("size", "<i8"), ("length", "<i4"), ("run", "<i4")])


class Entries(Sequence[Entry]):
    """A sequence of `Entry` that only grows. Path and label are kept once for each run of entries that share them."""

    def __init__(self) -> None:
        self._rows: bytearray | bytes = bytearray()
        self._names = bytearray()
        self._runs: list[tuple[str, str]] = []  # (path, label)

    def add(self, name: str, label: str, path: str, offset: int, size: int) -> None:
        """Put one more at the end (not into what `select` gave, whose rows are fixed)."""
        if not self._runs or self._runs[-1] != (path, label):
            self._runs.append((path, label))
        text = name.encode()
        self._rows += _PACKED.pack(len(self._names), offset, size, len(text), len(self._runs) - 1)
        self._names += text

    def select(self, order: np.ndarray) -> Entries:
        """Those at the places `order` (integers, or a mask), in that order; names are shared, not copied."""
        chosen = Entries()
        chosen._rows = self._table[order].tobytes()
        chosen._names, chosen._runs = self._names, self._runs
        return chosen

    def __len__(self) -> int:
        return len(self._rows) // _PACKED.size

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Entries: ...
    def __getitem__(self, index: int | slice) -> Entry | Entries:
        if isinstance(index, slice):
            return self.select(np.arange(*index.indices(len(self))))
        if not 0 <= index < len(self):
            raise IndexError(f"entry {index} of {len(self)}")
        name, offset, size, length, run = _PACKED.unpack_from(self._rows, index * _PACKED.size)
        path, label = self._runs[run]
        return Entry(self._names[name : name + length].decode(), label, path, offset, size)

    @property
    def _table(self) -> np.ndarray:
        return np.frombuffer(self._rows, _ROW)

    @property
    def size(self) -> int:
        """Bytes of all images together."""
        return int(self._table["size"].sum())

    def labels(self) -> set[str]:
        """The classes that have an entry here."""
        return {self._runs[run][1] for run in np.unique(self._table["run"])}

    def names(self) -> Iterator[str]:
        """The names in order."""
        for row in self._table:
            yield self._names[row["name"] : row["name"] + row["length"]].decode()

    def tfds_order(self, split: str) -> np.ndarray:
        """The places in tfds' own shuffled order: by the md5 of split and name. Raises UserError where a name occurs twice."""
        hasher = hashing.Hasher(split)
        keys = bytearray()
        for name in self.names():
            keys += hasher.hash_key(name).to_bytes(16, "big")
        high, low = np.frombuffer(keys, ">u8").reshape(-1, 2).astype(np.uint64).T
        order = np.lexsort((low, high))
        same = (np.diff(high[order]) == 0) & (np.diff(low[order]) == 0)
        if same.any():
            twice = self[int(order[same.argmax()])]
            raise UserError(f"{twice.path} holds {twice.name} twice. Every image of a split needs a name of its own.")
        return order

    def digest(self) -> str:
        """A sha256 of the list: names, classes, places, and the size and time of each file, wherever it lies."""
        hashed = hashlib.sha256(self._rows)
        hashed.update(self._names)
        for path, label in self._runs:
            hashed.update(f"{label}\0{_stamp(path)}\n".encode())
        return hashed.hexdigest()


def _stamp(path: str) -> str:
    try:
        stat = os.stat(path)
    except OSError:  # gone since it was listed: it is left out when its turn comes
        return "gone"
    return f"{stat.st_size} {stat.st_mtime_ns}"
