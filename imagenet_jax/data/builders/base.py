"""What all our tfds builders share: lists of entries in, array_record shards out, without TensorFlow and in flat memory.

tfds' own GeneratorBasedBuilder cannot do this for ImageNet: past 1 GB its shuffle writes temporary files through TensorFlow, and
with shuffling switched off it sorts the whole split in memory. Here the entries (a name and a place, not the bytes: 0.4 GB for the
1.28 million of ImageNet) are put in order first and the images read in that order, so that shuffling costs no disk space. The
order is tfds' own: by the md5 of split and name.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.dataset_builder import ShardBasedBuilder
from tensorflow_datasets.core.utils import shard_utils
from tqdm import tqdm

from imagenet_jax.data.archives import Entry
from imagenet_jax.data.judge import MAX_BYTES, Verdict, judge
from imagenet_jax.errors import RunError, UserError


class ImagesBuilder(ShardBasedBuilder, skip_registration=True):
    """Writes splits of images with `image`, `label` and `file_name`. Subclasses say name, version, classes and image format."""

    ONLY_JPEG = False
    HOMEPAGE: str | None = None

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str],
        splits: Mapping[str, Sequence[Entry]],
        classes: Sequence[str],
        left_out: Sequence[tuple[str, str]] = (),
        shuffle: bool = True,
        jobs: int | None = None,
    ):
        """`left_out`: ('SPLIT/NAME', reason) of what has fallen out already; `jobs`: threads that decode, one a core by default."""
        self.entries = dict(splits)
        self._classes = list(classes)
        self._shuffle = shuffle
        self._jobs = jobs or os.cpu_count() or 1
        self.left_out: list[tuple[str, str]] = list(left_out)
        self.rewritten: list[tuple[str, str]] = []  # ('SPLIT/NAME', what it was)
        self._progress: Callable[[], object] = lambda: None
        self._written: dict[str, set[str]] = {split: set() for split in splits}  # classes that it holds
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg" if self.ONLY_JPEG else None),
                    "label": tfds.features.ClassLabel(names=self._classes),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            disable_shuffling=not self._shuffle,
            metadata=tfds.core.MetadataDict(),
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator[Any]]]]:
        return {split: self._shards(split, list(entries)) for split, entries in self.entries.items()}

    def _shards(self, split: str, entries: list[Entry]) -> list[Callable[[], Iterator[Any]]]:
        if self._shuffle:
            hasher = hashing.Hasher(split)
            entries.sort(key=lambda entry: hasher.hash_key(entry.name))
        count = self._shard_count(sum(entry.size for entry in entries), len(entries))
        ends = [0, *shard_utils.get_shard_boundaries(len(entries), count)]
        bounds = itertools.pairwise(ends)
        return [functools.partial(self._examples, split, entries[start:end]) for start, end in bounds]

    @staticmethod
    def _shard_count(size: int, images: int) -> int:
        return shard_utils.ShardConfig.calculate_number_shards(size, images)

    def _examples(self, split: str, entries: Sequence[Entry]) -> Iterator[tuple[str, dict[str, Any]]]:
        inspect = functools.partial(_inspect, only_jpeg=self.ONLY_JPEG)
        for entry, verdict in zip(entries, in_order(inspect, entries, self._jobs), strict=True):
            self._progress()
            if verdict.left_out:
                self.left_out.append((f"{split}/{entry.name}", verdict.left_out))
                continue
            if verdict.rewritten:
                self.rewritten.append((f"{split}/{entry.name}", verdict.rewritten))
            self._written[split].add(entry.label)
            yield entry.name, {"image": verdict.data, "label": entry.label, "file_name": entry.name}

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        total = sum(map(len, self.entries.values()))
        # Off a terminal tqdm stays silent (disable=None).
        with tqdm(total=total, desc=f"Writing {self.name}", unit=" images", disable=None, dynamic_ncols=True) as bar:
            self._progress = bar.update
            super()._download_and_prepare(*args, **kwargs)
        for split, labels in self._written.items():
            if not labels:
                first = ": ".join(next(row for row in self.left_out if row[0].startswith(f"{split}/")))
                raise UserError(f"Not one image of the {split} split can be stored. The first: {first}.")
        absent = {split: [name for name in self._classes if name not in labels] for split, labels in self._written.items()}
        metadata: Any = self.info.metadata
        metadata.update(left_out=self.left_out, rewritten=self.rewritten, absent=absent)


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


def _inspect(entry: Entry, *, only_jpeg: bool) -> Verdict:
    if entry.size > MAX_BYTES:
        return Verdict(None, left_out=f"too large: {entry.size:,} bytes (limit {MAX_BYTES:,})")
    try:
        data = entry.read()
    except (PermissionError, FileNotFoundError) as error:  # this file's fault; any other may be the disk's, and ends the run
        return Verdict(None, left_out=f"unreadable: {error.strerror}")
    except OSError as error:
        raise RunError(f"Cannot read {entry.path}: {error.strerror}. Nothing is prepared.") from None
    return judge(data, only_jpeg=only_jpeg)
