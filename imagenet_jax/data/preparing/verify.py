"""Is a prepared data set whole, and does it hold the pixels that it should? Every record is read; nothing is written.

Alone, each record is decoded. Against another data set, or the archives it was made from, each image must have the same name, the
same class and exactly the same pixels: the proof that restart markers changed none.
"""

import io
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image
from tqdm import tqdm

from imagenet_jax.data.preparing.judge import FORMATS, judge
from imagenet_jax.data.preparing.shards import Rows, in_order
from imagenet_jax.data.reading import sources
from imagenet_jax.data.reading.records import Record
from imagenet_jax.data.storage.entries import Entries
from imagenet_jax.errors import RunError, UserError


class Verified(NamedTuple):
    """What was looked at, and all that is wrong."""

    name: str
    images: dict[str, int]  # by split
    other_bytes: dict[str, int]  # by split: of those, how many have the pixels they are compared with in other bytes
    faults: Rows  # ('SPLIT/NAME', what is wrong)


class _Side(NamedTuple):
    """One of two things to compare: `read(i)` for 0 .. `length` - 1."""

    length: int
    read: Callable[[int], Record]


def verify(
    data_dir: pathlib.Path,
    dataset: str,
    *,
    against: str | None = None,
    archives: Mapping[str, Entries] | None = None,
    jobs: int | None = None,
) -> Verified:
    """Read all splits of `dataset`, alone or `against` another one, or against the images in `archives` (by split).

    Raises UserError where either is not prepared, or where pixels differ by design, since images were re-encoded.
    """
    jobs = jobs or os.cpu_count() or 1
    info = _info(data_dir, dataset)
    ours = {split: sources.open_source(data_dir, dataset, split) for split in info.splits}
    theirs: dict[str, _Side] = {}
    if against is not None or archives is not None:
        _check_not_reencoded(dataset, info)
    if against is not None:
        theirs = _prepared(data_dir, dataset, against, next(iter(ours.values())).classes)
    elif archives is not None:
        theirs = {split: _original(info, split, entries) for split, entries in archives.items()}
    faults: Rows = [(split, "only in one of the two") for split in sorted(theirs.keys() ^ ours.keys())] if theirs else []
    other_bytes: dict[str, int] = {}
    with tqdm(total=sum(map(len, ours.values())), desc=f"Verifying {dataset}", unit=" images", disable=None) as bar:
        for split, source in ours.items():
            side = _Side(len(source), source.read)
            if split in theirs:
                rows, other_bytes[split] = _compared(side, theirs[split], jobs, bar.update)
            else:
                rows = _decoded(side, jobs, bar.update)
            faults += _counts(info, split) + [(f"{split}/{name}", what) for name, what in rows]
    return Verified(f"{dataset} {info.version}", {split: len(source) for split, source in ours.items()}, other_bytes, faults)


def _check_not_reencoded(dataset: str, info: Any) -> None:
    if ((info.metadata or {}).get("encoding") or {}).get("quality") is not None:
        raise UserError(
            f"The images of {dataset} were re-encoded: their pixels differ from the originals by design. Without anything to "
            "compare with, `verify` checks that every record is whole."
        )


def _prepared(data_dir: pathlib.Path, dataset: str, against: str, classes: tuple[str, ...]) -> dict[str, _Side]:
    """The splits of the data set `against`."""
    directory = sources.find(data_dir, against)
    if directory == sources.find(data_dir, dataset):  # as may be where one has several names: NAME, NAME/CONFIG, NAME:VERSION
        raise UserError(f"{dataset} and {against} are the same data set, in {directory}.")
    info = _info(data_dir, against)
    _check_not_reencoded(against, info)
    theirs = {split: sources.open_source(data_dir, against, split) for split in info.splits}
    if any(source.classes != classes for source in theirs.values()):
        raise UserError(f"{dataset} and {against} have different classes: they were not made from the same input.")
    return {split: _Side(len(source), source.read) for split, source in theirs.items()}


def _info(data_dir: pathlib.Path, dataset: str) -> Any:
    return tfds.builder_from_directory(str(sources.find(data_dir, dataset))).info


def _counts(info: Any, split: str) -> Rows:
    """Files that hold more or fewer records than the metadata say."""
    if info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        return []
    rows: Rows = []
    for path, said in zip(info.splits[split].filepaths, info.splits[split].shard_lengths, strict=True):
        held = ArrayRecordReader(str(path)).num_records()
        if held != said:
            rows.append((path.name, f"{held:,} records, where the metadata say {said:,}"))
    return rows


def _decoded(side: _Side, jobs: int, progress: Callable[[], object]) -> Rows:
    def check(index: int) -> Rows:
        record, fault = _read(side, index)
        if record is not None:
            fault = _pixels(record)[1]
        return [(record.name if record else f"#{index}", fault)] if fault else []

    rows: Rows = []
    for found in in_order(check, range(side.length), jobs):
        progress()
        rows += found
    return rows


def _compared(ours: _Side, theirs: _Side, jobs: int, progress: Callable[[], object]) -> tuple[Rows, int]:
    """What differs, and how many images have the same pixels in other bytes.

    Where the order is the same, as it is unless one of the two was made with --no_shuffle, each side is read once. What stands
    elsewhere is looked up by name in a second round.
    """
    rows: Rows = []
    changed = 0
    strays: tuple[dict[str, int], dict[str, int]] = ({}, {})

    def compare(pair: tuple[int, int]) -> tuple[list[Record | None], Rows, bool]:
        read = [_read(side, index) for side, index in zip((ours, theirs), pair, strict=True)]
        records = [record for record, _ in read]
        faults = [(f"#{index}", fault) for (_, fault), index in zip(read, pair, strict=True) if fault]
        a, b = records
        if a is None or b is None or a.name != b.name:
            return records, faults, False
        fault = _difference(a, b)
        return [None, None], [(a.name, fault)] if fault else [], a.image != b.image and not fault

    for index, (records, faults, other) in enumerate(
        in_order(compare, ((i, i) for i in range(max(ours.length, theirs.length))), jobs)
    ):
        progress()
        rows += faults
        changed += other
        for record, stray in zip(records, strays, strict=True):
            if record is not None:
                rows += [(record.name, "the name of two images")] if record.name in stray else []
                stray[record.name] = index
    both = [(place, strays[1][name]) for name, place in strays[0].items() if name in strays[1]]
    for _, faults, other in in_order(compare, both, jobs):
        rows += faults
        changed += other
    rows += [(name, "only in one of the two") for name in sorted(strays[0].keys() ^ strays[1].keys())]
    return rows, changed


def _read(side: _Side, index: int) -> tuple[Record | None, str | None]:
    if index >= side.length:
        return None, None
    try:
        return side.read(index), None
    except RunError as error:
        return None, str(error)


def _difference(a: Record, b: Record) -> str | None:
    if a.label != b.label:
        return f"class {a.label} here, {b.label} there"
    if a.image == b.image:
        return None
    (mine, fault), (other, other_fault) = _pixels(a), _pixels(b)
    if mine is None or other is None:
        return fault or f"there: {other_fault}"
    if mine.shape != other.shape:
        return f"{mine.shape} here, {other.shape} there (height, width, channels)"
    apart = np.abs(mine.astype(int) - other.astype(int))
    return f"{np.count_nonzero(apart):,} values differ, by up to {apart.max()}" if apart.any() else None


def _pixels(record: Record) -> tuple[np.ndarray | None, str | None]:
    """uint8 pixels, or what is wrong."""
    try:
        with Image.open(io.BytesIO(record.image), formats=FORMATS) as image:
            return np.asarray(image), None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, IndexError and more
        return None, f"does not decode: {error}"


def _original(info: Any, split: str, entries: Entries) -> _Side:
    """The images in the archives as an unmarked data set would hold them, in the order of `info`'s."""
    left_out = {name for name, _ in info.metadata.get("left_out", [])}
    kept = entries.select(np.array([f"{split}/{name}" not in left_out for name in entries.names()]))
    if not info.disable_shuffling:
        kept = kept.select(kept.tfds_order(split))
    label = info.features["label"].str2int

    def read(index: int) -> Record:
        entry = kept[index]
        verdict = judge(entry.read(), only_jpeg=True)  # as in all that is made from archives
        if verdict.data is None:
            raise RunError(f"{entry.name} in {entry.path}: {verdict.left_out}")
        return Record(verdict.data, label(entry.label), entry.name)

    return _Side(len(kept), read)
