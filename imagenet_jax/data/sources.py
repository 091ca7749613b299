"""Prepared data sets on disk: found by name, opened without TensorFlow, read by example id from any thread.

A data set is a directory that tfds wrote: DATA_DIR/NAME[/CONFIG]/VERSION with `array_record` files. tfds reads the metadata; the
records themselves are parsed here, since tfds' own feature decoding costs more than reading does.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.data import order
from imagenet_jax.data.classes import readable
from imagenet_jax.errors import RunError, UserError


class Record(NamedTuple):
    """One stored example."""

    image: bytes  # encoded
    label: int
    name: str  # the file it came from, for messages and samples


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a prepared data set, by random access. `read` may be called from many threads."""

    dataset: str  # NAME[/CONFIG]
    version: str
    split: str
    classes: tuple[str, ...]  # readable
    fingerprint: str  # sha256 of what identifies the data: features, metadata, names, sizes and order of files, a few records
    keys: tuple[str, str, str | None]  # feature names of image, label and, where there is one, file name
    records: Any  # array_record data source: len() and [i] -> serialized tf.train.Example

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> Record:
        """The example of that id, 0 .. len - 1. Raises RunError for one that cannot be used: torn, or without image or label."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        image, label, name = self.keys
        try:
            features = parse_example(self.records[index])
            record = features[image][0], features[label][0]
        except (ValueError, KeyError, IndexError, RuntimeError) as error:  # RuntimeError: array_record, of a torn file
            raise RunError(f"Example {index} of {self.dataset}, split {self.split}, cannot be read: {error}.") from error
        named = features.get(name) if name else None
        where = named[0].decode("utf-8", "replace") if named else f"{self.split}#{index}"
        if not 0 <= record[1] < len(self.classes):  # tfds stores -1 for "unknown", as in the test split of imagenet2012
            raise RunError(
                f"{where} (example {index} of {self.dataset}, split {self.split}) has the label {record[1]}, which is none of its "
                f"{len(self.classes)} classes. Choose a split with labels."
            )
        return Record(*record, where)


def open_source(data_dir: pathlib.Path, dataset: str, split: str) -> Source:
    """Open `split` (any tfds split expression) of `dataset`, "NAME[/CONFIG][:VERSION]".

    Raises UserError where it is not prepared, has no such split, holds TFRecords or is no image classification data set.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    directory = find(data_dir, dataset)
    info: Any = tfds.builder_from_directory(str(directory)).info
    if info.file_format is None or info.file_format.value != "array_record":
        raise UserError(
            f"{directory} holds {info.file_format.value if info.file_format else 'unknown'} files, which allow no random access. "
            "Convert it once, where TensorFlow is installed: tfds convert_format "
            f"--dataset_dir={directory} --out_file_format=array_record --out_dir=DIR; or prepare it anew with "
            "python -m imagenet_jax.prepare."
        )
    try:
        files = info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        names = ", ".join(f"{n} ({s.num_examples:,})" for n, s in info.splits.items())
        raise UserError(f"{directory} has no split {split!r}. It has: {names}. ({error})") from None
    keys = _keys(info.features, directory)
    names = info.features[keys[1]].names
    if min((f.take for f in files), default=0) < 1:  # negative where a slice ends before it begins
        raise UserError(f"Split {split!r} of {directory} is empty.")
    records = ArrayRecordDataSource(files)
    # Names and sizes alone do not tell small data sets apart: array_record fills its files up to blocks of 64 KB.
    some = order.permute(np.arange(min(16, len(records))), len(records), 0)
    try:
        layout = [(os.path.basename(f.filename), f.skip, f.take, os.path.getsize(f.filename)) for f in files]
        sample = [hashlib.sha256(records[int(i)]).hexdigest() for i in some]
    except (OSError, RuntimeError) as error:  # RuntimeError: array_record's
        raise UserError(f"{directory} is damaged: {error}. Prepare it again, with --overwrite.") from None
    config = info.config_name
    identity = [info.name, config, str(info.version), info.features.to_json(), dict(info.metadata or {}), layout, sample]
    return Source(
        dataset=f"{info.name}/{config}" if config else info.name,
        version=str(info.version),
        split=split,
        classes=tuple(readable(names)),
        fingerprint=hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest(),
        keys=keys,
        records=records,
    )


def find(data_dir: pathlib.Path, dataset: str) -> pathlib.Path:
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
        if len(configs) == 1:
            found = prepared_versions(base / configs[0])
        elif configs:
            raise UserError(f"{name} has several configs in {data_dir}: name one of {', '.join(f'{name}/{c}' for c in configs)}.")
    if version and found:
        versions = [d.name for d in found]
        if version not in versions:
            raise UserError(f"{name} {version} is not in {data_dir}. Prepared there: {', '.join(versions)}.")
        found = [found[versions.index(version)]]
    if not found:
        raise UserError(f"{dataset} is not in {data_dir}. {_remedy(data_dir, name)}")
    return found[-1]


def prepared_versions(base: pathlib.Path) -> list[pathlib.Path]:
    """The finished versions in `base`, oldest first."""
    done = [d.parent for d in base.glob("*/dataset_info.json") if re.fullmatch(r"\d+\.\d+\.\d+", d.parent.name)]
    return sorted(done, key=lambda d: tuple(map(int, d.name.split("."))))


def _remedy(data_dir: pathlib.Path, name: str) -> str:
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


def _keys(features: Any, directory: pathlib.Path) -> tuple[str, str, str | None]:
    """Names of the image, the label and the file name feature; by type, since not every builder calls them so."""
    import tensorflow_datasets as tfds

    def first(kind: type, preferred: str) -> str | None:
        names = [n for n, f in features.items() if isinstance(f, kind)]
        return preferred if preferred in names else next(iter(names), None)

    image, label = first(tfds.features.Image, "image"), first(tfds.features.ClassLabel, "label")
    if image is None or label is None:
        raise UserError(f"{directory} is no image classification data set: its features are {', '.join(features)}.")
    return image, label, next((n for n in ("file_name", "image/filename", "filename", "id") if n in features), None)


def parse_example(data: bytes) -> dict[str, list[Any]]:
    """A serialized tf.train.Example as name -> list of bytes or ints (float lists are left out: no image data set has any).

    The wire format, field by field: Example.features = 1, Features.feature = 1 (map: key = 1, value = 2), Feature.bytes_list = 1
    or .int64_list = 3, and in each list value = 1. Raises ValueError for bytes that are no Example.
    """
    out: dict[str, list[Any]] = {}
    try:
        for _, features in _fields(memoryview(data)):  # slices of it copy nothing
            for _, entry in _fields(features):
                parts = dict(_fields(entry))
                values: list[Any] = []
                for kind, content in _fields(parts.get(2, memoryview(b""))):
                    if kind == 1:
                        values += [v.tobytes() for _, v in _fields(content)]
                    elif kind == 3:
                        for _, v in _fields(content):
                            values += [_signed(v)] if isinstance(v, int) else _packed(v)
                out[parts[1].tobytes().decode()] = values
    except (IndexError, KeyError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a tf.train.Example: {error}") from None
    return out


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, int or memoryview) for each field of a protobuf message."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        if tag & 7 == 2:
            size, at = _varint(data, at)
            if at + size > end:
                raise ValueError("not a tf.train.Example: it is cut off")
            yield tag >> 3, data[at : at + size]
            at += size
        elif tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        else:
            raise ValueError(f"not a tf.train.Example: wire type {tag & 7}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
        shift += 7
        if shift > 63:
            raise ValueError("not a tf.train.Example: a number of more than ten bytes")


def _packed(data: memoryview) -> list[int]:
    at, values = 0, []
    while at < len(data):
        value, at = _varint(data, at)
        values.append(_signed(value))
    return values


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
