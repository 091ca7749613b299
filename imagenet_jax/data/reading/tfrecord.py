"""TFRecord files by random access, without TensorFlow: an index of where each record starts, and reads at those places.

A record is its length (uint64), the masked CRC32C of the length, the data, and the masked CRC32C of the data; all little-endian.
Nothing says where the n-th begins, so the headers are walked through once. The index, 8 bytes a record, is a plain .npy beside the
data or in the user's cache, memory-mapped by every later start; it holds for the names, sizes and times of the files it was made
of.
"""

import bisect
import concurrent.futures
import hashlib
import itertools
import json
import os
import pathlib
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from imagenet_jax.data.reading.crc32c import crc32c, crc32c_of_words, masked
from imagenet_jax.data.storage.files import Files
from imagenet_jax.data.storage.remote import Stat
from imagenet_jax.errors import UserError

HEADER, FOOTER = 12, 4  # bytes around the data
THREADS = 64  # the walk waits for the disk or the network, not for a core
SMALL = 32 << 10  # bytes; files of smaller records are read through, of larger ones only the headers
THROUGH = 4 << 20  # bytes a read then


class Shards(NamedTuple):
    """The files of one split, in order."""

    paths: list[str]  # local, or URLs
    stats: list[Stat]
    counts: list[int]  # records, as the data set's metadata says


class Part(NamedTuple):
    """Records of one file: `take` of them, after `skip`."""

    table: int  # which of the indexes
    shard: int
    skip: int
    take: int


class TfRecords:
    """len() and [i] -> the bytes of record i, from any thread; pickled, it opens its files anew."""

    def __init__(self, shards: Sequence[Shards], indexes: Sequence[pathlib.Path], parts: Sequence[Part], check_crc: bool):
        self._indexes, self._check_crc = list(indexes), check_crc
        self._files = [Files(s.paths) for s in shards]
        self._parts = list(parts)
        firsts = [list(itertools.accumulate((n + 1 for n in s.counts), initial=KEY_WORDS)) for s in shards]
        self._place = [firsts[p.table][p.shard] + p.skip for p in parts]  # in the index
        self._ends = list(itertools.accumulate(p.take for p in parts))
        self._tables = [_mapped(path) for path in self._indexes]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> memoryview:
        """Raises ValueError for a record that is torn or no longer where the index says, or fails its check."""
        part = bisect.bisect_right(self._ends, index)
        table, shard, _, take = self._parts[part]
        at = self._place[part] + index - self._ends[part] + take
        start, stop = self._tables[table][at : at + 2].tolist()
        data = self._files[table].read(shard, start, stop - start)
        size = len(data) - HEADER - FOOTER
        if int.from_bytes(data[:8], "little") != size:
            raise ValueError(f"{self._files[table].paths[shard]} has changed since it was indexed, or is damaged at byte {start:,}")
        record = memoryview(data)[HEADER:-FOOTER]
        if self._check_crc and masked(np.array([crc32c(record)], np.uint32))[0] != int.from_bytes(data[-FOOTER:], "little"):
            raise ValueError(f"{self._files[table].paths[shard]} is damaged at byte {start:,}: its CRC32C does not fit")
        return record

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_tables"}  # a pickled memmap would be all of its content

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._tables = [_mapped(path) for path in self._indexes]


# ---- the index: KEY_WORDS of key and checksum, then for each file its records' starts and its size, all int64

KEY_WORDS = 5


def index(shards: Shards, places: Sequence[pathlib.Path], what: str) -> pathlib.Path:
    """The index of `shards`: from the first of `places` that holds it, else made and written to the first that can be written.

    Raises UserError for a file that is cut off or damaged, or holds another number of records than `counts`.
    """
    key = _key(shards)
    for place in places:
        try:
            table = _mapped(place)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, EOFError) as error:
            print(f"The index {place} is damaged ({error}): it is made again.", flush=True)
            continue
        if len(table) == KEY_WORDS + sum(shards.counts) + len(shards.counts) and np.array_equal(table[:4], key):
            if _checksum(table) == table[4] and _sound(table, shards):
                return place
            print(f"The index {place} is damaged: it is made again.", flush=True)
        else:
            print(f"The data have changed since the index {place} was made: it is made again.", flush=True)
    starts = _walk_all(shards, what)
    return write_index(shards, starts, places)


def write_index(shards: Shards, starts: Sequence[np.ndarray], places: Sequence[pathlib.Path]) -> pathlib.Path:
    """Write `starts`, int64 (counts[i] + 1,) for file i, to the first of `places` that can be written."""
    table = np.empty(KEY_WORDS + sum(map(len, starts)), np.int64)
    np.concatenate(starts, out=table[KEY_WORDS:])
    table[:4], table[4] = _key(shards), _checksum(table)
    for place in places:
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(prefix=".index_", dir=place.parent)
        except OSError:
            continue
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, table, allow_pickle=False)
            os.chmod(part, 0o644)  # beside the data it serves every user who can read them
            os.replace(part, place)
        except OSError:  # full
            pathlib.Path(part).unlink(missing_ok=True)
            continue
        return place
    raise UserError(
        f"An index of {table.nbytes / 1e6:,.1f} MB fits nowhere: {' and '.join(str(p.parent) for p in places)} cannot be written. "
        "Set XDG_CACHE_HOME to a directory that can."
    )


def _mapped(path: pathlib.Path) -> np.ndarray:
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    if table.dtype != np.int64 or table.ndim != 1:
        raise ValueError(f"it holds {table.dtype} {table.shape}")
    return np.asarray(table)  # not a np.memmap, which takes longer to index


def _key(shards: Shards) -> np.ndarray:
    """Of the files that an index was made of, int64 (4,)."""
    state = [(os.path.basename(path), *stat) for path, stat in zip(shards.paths, shards.stats, strict=True)]
    return np.frombuffer(hashlib.sha256(json.dumps(state).encode()).digest(), np.int64)


def _checksum(table: np.ndarray) -> int:
    return zlib.crc32(table[KEY_WORDS:].data)


def _sound(table: np.ndarray, shards: Shards) -> bool:
    """Whether the starts of each file rise from 0 to its size: what is read later has these places and sizes."""
    at = KEY_WORDS
    for count, stat in zip(shards.counts, shards.stats, strict=True):
        starts = table[at : at + count + 1]
        if starts[0] != 0 or starts[-1] != stat.size or np.any(np.diff(starts) < HEADER + FOOTER):
            return False
        at += count + 1
    return True


def _walk_all(shards: Shards, what: str) -> list[np.ndarray]:
    files, number = Files(shards.paths), len(shards.paths)
    print(f"Indexing {number:,} TFRecord files of {what}, once.", flush=True)
    with (
        concurrent.futures.ThreadPoolExecutor(min(number, THREADS)) as pool,
        tqdm(total=number, desc="index", unit="file", leave=False, disable=not sys.stderr.isatty()) as bar,
    ):

        def one(i: int) -> np.ndarray:
            starts = _walk(lambda at, size: files.read(i, at, size), shards.stats[i].size, shards.counts[i], shards.paths[i])
            files.close(i)
            bar.update()
            return starts

        tasks = [pool.submit(one, i) for i in range(number)]
        try:
            return [task.result() for task in tasks]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _walk(read: Callable[[int, int], bytes], size: int, count: int, path: str) -> np.ndarray:
    """The starts of the `count` records of a file and its end, int64 (count + 1,)."""
    remedy = "Copy or download it again, or prepare the data set anew."
    starts = np.empty(min(count, size // (HEADER + FOOTER)) + 1, np.int64)  # whatever the metadata claim
    headers = bytearray()
    step = THROUGH if size < count * SMALL else HEADER
    at = first = 0
    window = b""
    for i in range(count):
        starts[i] = at
        if at + HEADER + FOOTER > size:
            raise UserError(f"{path} ends after {i:,} of its {count:,} records. {remedy}")
        if at + HEADER > first + len(window):
            first, window = at, read(at, min(step, size - at))
        header = window[at - first : at - first + HEADER]
        headers += header
        length = int.from_bytes(header[:8], "little")
        if length > size - at - HEADER - FOOTER:
            raise UserError(f"{path} is cut off or damaged: record {i:,}, at byte {at:,}, claims {length:,} bytes. {remedy}")
        at += HEADER + length + FOOTER
    if at != size:
        raise UserError(f"{path} has {size - at:,} bytes behind the {count:,} records that dataset_info.json speaks of. {remedy}")
    starts[count] = size
    words = np.frombuffer(headers, "<u4").reshape(count, 3)
    wrong = np.flatnonzero(masked(crc32c_of_words(words[:, :2].T.copy())) != words[:, 2])
    if len(wrong):
        raise UserError(f"{path} is damaged: the length of record {wrong[0]:,} fails its CRC32C. {remedy}")
    return starts
