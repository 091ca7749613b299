"""Entries in, a data set in tfds' format out (array_record), shard by shard, so that an interrupted run goes on where it stopped.

Memory holds the list (entries.py) and a few images a thread. Written twice, a shard has the same bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import PIL
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.utils import shard_utils
from tqdm import tqdm

from imagenet_jax import __version__
from imagenet_jax.data.preparing.judge import MAX_BYTES, Verdict, judge
from imagenet_jax.data.preparing.staging import Partial
from imagenet_jax.data.storage.encoding import PLAIN, Encoding
from imagenet_jax.data.storage.entries import Entries, Entry
from imagenet_jax.errors import RunError, UserError

Rows = list[tuple[str, str]]  # ('SPLIT/NAME', what there is to say of it)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What a data set is called and says of itself. Its examples have `image`, `label` and `file_name`."""

    name: str
    version: str
    description: str
    classes: Sequence[str]
    only_jpeg: bool = False
    homepage: str | None = None
    shuffled: bool = True  # in tfds' order, or in that of the input
    encoding: Encoding = PLAIN
    variant: str | None = None  # one of several sets of that name, whose images are stored as they came

    @property
    def config(self) -> str | None:
        """What tfds calls so: the variant, or how images are stored."""
        return self.variant or self.encoding.config

    def directory(self, data_dir: pathlib.Path) -> pathlib.Path:
        """Where it lies: DATA_DIR/NAME[/CONFIG]/VERSION."""
        return data_dir / self.name / (self.config or "") / self.version

    def features(self) -> tfds.features.FeaturesDict:
        """As in tfds' catalogue (imagenet2012)."""
        image = tfds.features.Image(encoding_format="jpeg" if self.only_jpeg or self.encoding.reencodes else None)
        label = tfds.features.ClassLabel(names=list(self.classes))
        return tfds.features.FeaturesDict({"image": image, "label": label, "file_name": tfds.features.Text()})


@dataclasses.dataclass
class Done:
    """What went into one shard or, summed, into one split."""

    shard_lengths: list[int] = dataclasses.field(default_factory=list)
    file_bytes: int = 0
    bytes_before: int = 0  # of the stored images, as they came
    bytes_after: int = 0  # as stored
    classes: list[str] = dataclasses.field(default_factory=list)  # of which it holds an image
    left_out: Rows = dataclasses.field(default_factory=list)
    rewritten: Rows = dataclasses.field(default_factory=list)
    unmarked: Rows = dataclasses.field(default_factory=list)

    def add(self, other: Done) -> None:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def write(dataset: DataSet, splits: Mapping[str, Entries], left_out: Rows, partial: Partial, *, jobs: int) -> None:
    """Write what is not written yet, in the order of the entries, and the metadata into `partial.data`; `jobs` threads encode.

    `left_out` has fallen out already. Raises UserError where a split ends up empty, RunError where the input cannot be read.
    """
    done = {split: Done() for split in splits}
    total = sum(map(len, splits.values()))
    # Off a terminal tqdm stays silent (disable=None).
    with tqdm(total=total, desc=f"Writing {dataset.name}", unit=" images", disable=None, dynamic_ncols=True) as bar:
        for split, entries in splits.items():
            count = shard_count(entries.size, len(entries))
            start = 0
            for index, end in enumerate(shard_utils.get_shard_boundaries(len(entries), count)):
                file = f"{dataset.name}-{split}.array_record-{index:05d}-of-{count:05d}"
                if said := partial.finished(file):
                    shard = Done(**said)
                    bar.update(end - start)
                else:
                    chosen = (entries[i] for i in range(start, end))
                    shard = _write_shard(partial.data / file, split, chosen, dataset, jobs, bar.update)
                    partial.finish(file, dataclasses.asdict(shard))
                done[split].add(shard)
                start = end
    for split, part in done.items():
        if not sum(part.shard_lengths):
            first = ": ".join(part.left_out[0])  # each of its images is in there
            shutil.rmtree(partial.root)
            raise UserError(f"Not one image of the {split} split can be stored. The first: {first}.")
    _write_info(dataset, done, left_out, partial.data)


def digest(dataset: DataSet, splits: Mapping[str, Entries]) -> str:
    """A sha256 of all that a shard depends on: input, options and the versions of what writes it."""
    versions = [__version__, PIL.__version__, importlib.metadata.version("array_record")]
    lists = {split: entries.digest() for split, entries in splits.items()}
    identity = json.dumps([dataclasses.asdict(dataset), versions, lists], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


def shard_count(size: int, images: int) -> int:
    """tfds' own rule: shards of 64 MB to 1 GB, a power of two up to 1024 of them, then multiples of that."""
    return shard_utils.ShardConfig.calculate_number_shards(size, images)


def _write_shard(
    path: pathlib.Path, split: str, entries: Iterable[Entry], dataset: DataSet, jobs: int, progress: Callable[[], object]
) -> Done:
    features: Any = dataset.features()
    make = functools.partial(_record, features, ExampleSerializer(features.get_serialized_info()), dataset)
    done, images, classes = Done(), 0, set()
    writer = ArrayRecordWriter(str(path), "group_size:1")  # as tfds does: any record by itself
    try:
        for entry, verdict, record in in_order(make, entries, jobs):
            progress()
            name = f"{split}/{entry.name}"
            for rows, reason in (
                (done.left_out, verdict.left_out),
                (done.rewritten, verdict.rewritten),
                (done.unmarked, verdict.unmarked),
            ):
                if reason:
                    rows.append((name, reason))
            if verdict.data is not None:
                writer.write(record)
                images += 1
                classes.add(entry.label)
                done.bytes_before += entry.size
                done.bytes_after += len(verdict.data)
    finally:
        writer.close()
    done.shard_lengths, done.classes, done.file_bytes = [images], sorted(classes), path.stat().st_size
    return done


def _record(features: Any, serializer: Any, dataset: DataSet, entry: Entry) -> tuple[Entry, Verdict, bytes]:
    verdict = inspect(entry, dataset)
    if verdict.data is None:
        return entry, verdict, b""
    example = features.encode_example({"image": verdict.data, "label": entry.label, "file_name": entry.name})
    # Not features.serialize_example: the order of its fields differs from process to process.
    return entry, verdict, serializer.get_tf_example(example).SerializeToString(deterministic=True)


def inspect(entry: Entry, dataset: DataSet) -> Verdict:
    """Read one image and say what to store of it. Raises RunError where the disk fails, not the file."""
    if entry.size > MAX_BYTES:
        return Verdict(None, left_out=f"too large: {entry.size:,} bytes (limit {MAX_BYTES:,})")
    try:
        data = entry.read()
    except (PermissionError, FileNotFoundError) as error:  # this file's fault; any other may be the disk's, and ends the run
        return Verdict(None, left_out=f"unreadable: {error.strerror}")
    except OSError as error:
        raise RunError(f"Cannot read {entry.path}: {error.strerror}. The same command goes on once it can be read.") from None
    return judge(data, only_jpeg=dataset.only_jpeg, encoding=dataset.encoding)


def in_order(function: Callable[[Any], Any], items: Iterable[Any], jobs: int) -> Iterator[Any]:
    """`map(function, items)` on `jobs` threads, at most 4 * `jobs` items ahead of the reader, results in the order of the items."""
    with ThreadPoolExecutor(jobs, thread_name_prefix="prepare") as pool:
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 4 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_info(dataset: DataSet, done: Mapping[str, Done], left_out: Rows, data: pathlib.Path) -> None:
    parts = done.values()
    held = {split: set(part.classes) for split, part in done.items()}
    metadata: dict[str, Any] = {
        "encoding": dataclasses.asdict(dataset.encoding),
        "image_bytes": {split: {"before": part.bytes_before, "after": part.bytes_after} for split, part in done.items()},
        "left_out": left_out + [row for part in parts for row in part.left_out],
        "rewritten": [row for part in parts for row in part.rewritten],
        "unmarked": [row for part in parts for row in part.unmarked],
        "absent": {split: [name for name in dataset.classes if name not in held[split]] for split in done},
    }
    identity = tfds.core.DatasetIdentity(dataset.name, tfds.core.Version(dataset.version), str(data), __name__, dataset.config)
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=dataset.description,
        features=dataset.features(),
        supervised_keys=("image", "label"),
        homepage=dataset.homepage,
        disable_shuffling=not dataset.shuffled,
        metadata=tfds.core.MetadataDict(metadata),
    )
    info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
    splits = [tfds.core.SplitInfo(name=split, shard_lengths=p.shard_lengths, num_bytes=p.file_bytes) for split, p in done.items()]
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(data)
