"""Data sets on disk or in a bucket: found by name or path, opened without TensorFlow, read by example id from any thread.

A prepared data set is a directory that tfds wrote, DATA_DIR/NAME[/CONFIG]/VERSION with `array_record` or TFRecord files; a plain
one is a folder, PATH/SPLIT/CLASS/IMAGE (folders.py). tfds reads the metadata; the records themselves are parsed here, since tfds'
own feature decoding costs more than reading does.
"""

import difflib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from imagenet_jax.data import order
from imagenet_jax.data.labels.classes import readable
from imagenet_jax.data.reading import folders, tfrecord
from imagenet_jax.data.reading.examples import make_parser
from imagenet_jax.data.reading.records import AS_THEY_CAME, Record, Source
from imagenet_jax.data.storage import locate, remote
from imagenet_jax.data.storage.encoding import is_config
from imagenet_jax.data.storage.files import allow_open_files
from imagenet_jax.data.storage.locate import Place
from imagenet_jax.data.storage.remote import Stat, Url
from imagenet_jax.errors import UserError

METADATA = (".json", ".txt")  # what tfds writes beside the records
METADATA_LIMIT = 64 << 20  # bytes
SAMPLE = 16  # records that go into the fingerprint: names and sizes alone do not tell small data sets apart


def open_source(data_dir: Place, dataset: str, split: str, *, check_crc: bool = False) -> Source:
    """Open `split` of `dataset`.

    `dataset` is "NAME[/CONFIG][:VERSION]" below `data_dir`, and `split` any tfds split expression; or it is the path of a plain
    folder (it starts with /, ./, ../ or ~, or has a scheme such as gs://), and `split` the name of a folder in it. `check_crc`
    checks the CRC32C of each TFRecord as it is read; array_record files check themselves, plain files hold no checksum.
    Raises UserError where it is not there, has no such split, is damaged or is no image classification data set.
    """
    if re.match(r"(/|\./|\.\./|~|\w[\w+.-]*://)", dataset) or dataset in (".", ".."):
        return folders.open_folder(dataset.removesuffix(f":{folders.VERSION}"), split)
    return _open_prepared(find(data_dir, dataset), split, check_crc)


def _open_prepared(directory: Place, split: str, check_crc: bool) -> Source:
    import tensorflow_datasets as tfds

    local = _mirror(directory) if isinstance(directory, Url) else directory
    if not (local / "features.json").is_file():
        raise UserError(f"{directory} has no features.json: it was written by tfds before 4.0. Prepare it again.")
    try:
        info: Any = tfds.builder_from_directory(str(local)).info
        kind = info.file_format.value  # tfrecord where the metadata do not say: tfds once knew only these
    except Exception as error:  # tfds and protobuf have many kinds for metadata that are none
        raise UserError(f"{directory} has metadata that tfds cannot read: {error!r}. Prepare it again.") from error
    if kind not in OPENERS:
        raise UserError(f"{directory} holds {kind} files. What can be read: {', '.join(OPENERS)}. Prepare it again.")
    try:
        files = info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        names = ", ".join(f"{n} ({s.num_examples:,})" for n, s in info.splits.items())
        raise UserError(f"{directory} has no split {split!r}. It has: {names}. ({error})") from None
    keys = _keys(info.features, directory)
    if min((f.take for f in files), default=0) < 1:  # negative where a slice ends before it begins
        raise UserError(f"Split {split!r} of {directory} is empty.")
    stats = _stats(directory, local, [f.filename for f in files])
    stored = OPENERS[kind](directory, local, info, files, stats, check_crc)
    some = order.permute(np.arange(min(SAMPLE, len(stored))), len(stored), 0)
    try:
        sample = [hashlib.sha256(stored[int(i)]).hexdigest() for i in some]
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: array_record's
        raise UserError(f"{directory} is damaged: {error}. Prepare it again, with --overwrite.") from None
    layout = [(os.path.basename(f.filename), f.skip, f.take, s.size) for f, s in zip(files, stats, strict=True)]
    config, metadata = info.config_name, dict(info.metadata or {})
    identity = [info.name, config, str(info.version), info.features.to_json(), metadata, layout, sample]
    return Source(
        dataset=f"{info.name}/{config}" if config else info.name,
        version=str(info.version),
        split=split,
        classes=tuple(readable(info.features[keys[1]].names)),
        fingerprint=hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest(),
        encoding={**AS_THEY_CAME, **(metadata.get("encoding") or {})},
        nbytes=sum(s.size * f.take // f.examples_in_shard for f, s in zip(files, stats, strict=True)),
        records=ExampleRecords(stored, keys, split),
    )


class Stored(Protocol):
    """len() and [i] -> serialized tf.train.Example."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> bytes | memoryview: ...


class ExampleRecords:
    """Records out of stored Examples; `keys` are the feature names of image, label and, where there is one, file name."""

    def __init__(self, stored: Stored, keys: tuple[str, str, str | None], split: str):
        self.stored, self._keys, self._split = stored, keys, split
        self._image, self._label, self._name = ((key or "").encode() for key in keys)
        self._parse = make_parser([key.encode() for key in keys if key])

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> Record:
        """Raises ValueError for one without image or label."""
        found = self._parse(self.stored[index])
        image, label, name = found.get(self._image), found.get(self._label), found.get(self._name)
        if not isinstance(image, bytes) or not isinstance(label, int):
            raise ValueError(f"it has no {self._keys[0]} or no {self._keys[1]}")
        named = name.decode("utf-8", "replace") if isinstance(name, bytes) else f"{self._split}#{index}"
        return Record(image, label, named)

    def __reduce__(self) -> tuple[Any, ...]:
        return ExampleRecords, (self.stored, self._keys, self._split)


# ---- file formats


def _open_array_record(
    directory: Place, local: pathlib.Path, info: Any, files: Sequence[Any], stats: list[Stat], check_crc: bool
) -> Stored:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    if isinstance(directory, Url):  # array_record opens local files only
        names = [os.path.relpath(f.filename, local) for f in files]
        remote.fetch(directory, dict(zip(names, stats, strict=True)), local)
    allow_open_files(len(files))
    return ArrayRecordDataSource(files)


def _open_tfrecord(
    directory: Place, local: pathlib.Path, info: Any, files: Sequence[Any], stats: list[Stat], check_crc: bool
) -> Stored:
    """The index covers whole splits, so that it is made once for all their slices."""
    shards, indexes = [], []
    wanted = {f.filename for f in files}
    where: dict[str, tuple[int, int]] = {}  # file -> table, shard
    for name, whole in info.splits.items():
        paths = [str(path) for path in whole.filepaths]
        if wanted.isdisjoint(paths):
            continue
        where.update({path: (len(shards), i) for i, path in enumerate(paths)})
        places = [local / f"{name}.tfrecord_index.npy"]
        if not isinstance(directory, Url):
            of_this = hashlib.sha256(str(local.resolve()).encode()).hexdigest()[:16]
            places.append(locate.user_cache("index") / f"{info.name}-{of_this}-{name}.npy")
        real = [str(directory / os.path.relpath(path, local)) for path in paths]
        shards.append(tfrecord.Shards(real, _stats(directory, local, paths), list(whole.shard_lengths)))
        indexes.append(tfrecord.index(shards[-1], places, f"{info.name} {info.version}, split {name}"))
    parts = [tfrecord.Part(*where[f.filename], f.skip, f.take) for f in files]
    return tfrecord.TfRecords(shards, indexes, parts, check_crc)


OPENERS = {"array_record": _open_array_record, "tfrecord": _open_tfrecord}


def _mirror(directory: Url) -> pathlib.Path:
    """A local directory with the metadata of a remote data set, fetched anew where it changed."""
    of_this = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    local = locate.private(locate.user_cache("data") / of_this)
    found = remote.files(directory)
    small = {n: s for n, s in found.items() if n.endswith(METADATA) and "/" not in n and s.size <= METADATA_LIMIT}
    for stale in local.iterdir():
        if stale.name.endswith(METADATA) and stale.name not in small:
            stale.unlink()
    remote.fetch(directory, small, local)
    return local


def _stats(directory: Place, local: pathlib.Path, paths: Sequence[str]) -> list[Stat]:
    """Of data files, named by the paths that tfds makes of the metadata in `local`. Raises UserError for one that is not there."""
    names = [os.path.relpath(path, local) for path in paths]
    if any(name.startswith("..") for name in names):
        raise UserError(f"dataset_info.json of {directory} names files outside of it. Do not trust it.")
    try:
        if isinstance(directory, Url):
            there = remote.files(directory)
            return [there[name] for name in names]
        return [Stat(s.st_size, str(s.st_mtime_ns)) for s in (os.stat(local / name) for name in names)]
    except (OSError, KeyError) as error:
        raise UserError(f"{directory} is damaged: {error}. Prepare it again, with --overwrite.") from None


# ---- finding


def find(data_dir: Place, dataset: str) -> Place:
    """The directory of "NAME[/CONFIG][:VERSION]" below `data_dir`: the newest version unless one is named."""
    match = re.fullmatch(r"(\w[\w-]*)(?:/([\w.-]+))?(?::(\d+\.\d+\.\d+))?", dataset)
    if not match:
        raise UserError(f"Data set {dataset!r} is not of the form NAME[/CONFIG][:VERSION], such as imagenet2012:5.1.0.")
    name, config, version = match.groups()
    base = data_dir / name
    if config:
        base /= config
    found = prepared_versions(base)
    if not found and not config:  # a data set with configs, none of them named
        configs = sorted(d.name for d in base.glob("*") if d.is_dir() and prepared_versions(d))
        if len(configs) == 1 and not is_config(configs[0]):
            found = prepared_versions(base / configs[0])
        elif configs:
            several = "several configs" if len(configs) > 1 else "only images encoded anew"
            raise UserError(f"{name} has {several} in {data_dir}: name {' or '.join(f'{name}/{c}' for c in configs)}.")
    if version and found:
        versions = [d.name for d in found]
        if version not in versions:
            raise UserError(f"{name} {version} is not in {data_dir}. Prepared there: {', '.join(versions)}.")
        found = [found[versions.index(version)]]
    if not found:
        raise UserError(f"{dataset} is not in {data_dir}. {_remedy(data_dir, name)}")
    return found[-1]


def prepared_versions(base: Place) -> list[Place]:
    """The finished versions in `base`, oldest first."""
    done = [d.parent for d in base.glob("*/dataset_info.json") if re.fullmatch(r"\d+\.\d+\.\d+", d.parent.name)]
    return sorted(done, key=lambda d: tuple(map(int, d.name.split("."))))


def _remedy(data_dir: Place, name: str) -> str:
    here = sorted(
        d.name
        for d in data_dir.glob("*")
        if d.is_dir() and (prepared_versions(d) or any(prepared_versions(c) for c in d.glob("*")))
    )
    near = difflib.get_close_matches(name, {*here, "imagenet2012", "digits"} - {name}, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    prepared = f"Prepared there: {', '.join(here)}." if here else "Nothing is prepared there."
    command = "imagenet2012 --manual_dir=DIR" if name == "imagenet2012" else f"folder --name={name} --train=DIR --validation=DIR"
    if name == "digits":
        command = "digits"
    return f"{hint}Prepare it: python -m imagenet_jax.prepare {command} --data_dir={data_dir}. {prepared} Or set --data_dir."


def _keys(features: Any, directory: Place) -> tuple[str, str, str | None]:
    """Names of the image, the label and the file name feature; by type, since not every builder calls them so."""
    import tensorflow_datasets as tfds

    def first(kind: type, preferred: str) -> str | None:
        names = [n for n, f in features.items() if isinstance(f, kind)]
        return preferred if preferred in names else next(iter(names), None)

    image, label = first(tfds.features.Image, "image"), first(tfds.features.ClassLabel, "label")
    if image is None or label is None:
        raise UserError(f"{directory} is no image classification data set: its features are {', '.join(features)}.")
    return image, label, next((n for n in ("file_name", "image/filename", "filename", "id") if n in features), None)
