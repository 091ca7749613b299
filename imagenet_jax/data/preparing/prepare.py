"""Preparing data sets: from the user's tars and folders to tfds directories of array_record files.

Everything that can be known beforehand is checked before anything is written: names, tars, classes, free space. What is written is
unfinished until it is renamed (shards.py), and an interrupted run goes on when the same command is given again.
"""

import dataclasses
import errno
import functools
import os
import pathlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tensorflow_datasets as tfds
from tqdm import tqdm

from imagenet_jax.data.labels import papers
from imagenet_jax.data.preparing import shards
from imagenet_jax.data.preparing.builders import digits, imagenet21k, imagenet2012, robustness
from imagenet_jax.data.preparing.builders.folder import data_set, split_by_hash
from imagenet_jax.data.preparing.judge import check_markers
from imagenet_jax.data.preparing.shards import DataSet, Rows
from imagenet_jax.data.preparing.staging import Partial, alone, check_space, folder_size
from imagenet_jax.data.preparing.trade import Trade, measure
from imagenet_jax.data.storage.archives import Listing, Progress, class_folders
from imagenet_jax.data.storage.encoding import PLAIN, Encoding
from imagenet_jax.data.storage.entries import Entries
from imagenet_jax.errors import RunError, UserError

OTHERS = tuple(sorted({name.split("/")[0] for name in papers.SETS}))
RESERVED = ("imagenet2012", "imagenet21k", "digits", *OTHERS, "downloads")  # the last: tfds' own folder among the data sets

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Result:
    """What lies on disk after preparing, as read back from there."""

    name: str  # NAME[/CONFIG]
    version: str
    directory: pathlib.Path
    existed: bool  # nothing was done: it was prepared before
    images: dict[str, int]  # by split
    classes: tuple[str, ...]
    absent: dict[str, list[str]]  # by split: classes of which it holds no image
    left_out: Rows  # ('SPLIT/NAME', reason)
    rewritten: Rows  # ('SPLIT/NAME', what it was)
    unmarked: Rows  # ('SPLIT/NAME', why it has no restart markers)
    encoding: Encoding
    image_bytes: dict[str, dict[str, int]]  # by split: of all images, 'before' and 'after'
    trade: Trade | None = None  # measured in this run, where images are stored in another encoding


def prepare_imagenet2012(
    *,
    manual_dir: pathlib.Path,
    data_dir: pathlib.Path,
    shuffle: bool = True,
    encoding: Encoding = PLAIN,
    overwrite: bool = False,
    jobs: int | None = None,
) -> Result:
    """Write imagenet2012 5.1.0 from the official tars in `manual_dir`; either of the two is enough.

    Raises UserError where both are missing, one is no such tar, or the disk is too full.
    """
    dataset = imagenet2012.data_set(encoding, shuffled=shuffle)
    if existing := _existing(dataset, data_dir, overwrite):
        return existing
    listings = imagenet2012_listings(manual_dir)
    splits = {split: listing.entries for split, listing in listings.items()}
    return _write(dataset, data_dir, splits, _named(listings), overwrite=overwrite, jobs=jobs)


def imagenet2012_listings(manual_dir: pathlib.Path) -> dict[str, Listing]:
    """What the official tars in `manual_dir` hold, by split. Raises UserError where neither is there, or one is no such tar."""
    tars = {split: manual_dir / tar for split, tar in imagenet2012.TARS.items()}
    if not any(tar.is_file() for tar in tars.values()):
        raise UserError(
            f"Neither {' nor '.join(imagenet2012.TARS.values())} is in {manual_dir}. Download them from https://image-net.org "
            "(ILSVRC 2012, task 1; needs a login), put them into that folder as they are, or name another with --manual_dir. "
            "Either one alone works too."
        )
    list_one = {"train": imagenet2012.train_listing, "validation": imagenet2012.validation_listing}
    return {split: _listed(tar, list_one[split]) for split, tar in tars.items() if tar.is_file()}


def prepare_imagenet21k(
    *, source: pathlib.Path, data_dir: pathlib.Path, encoding: Encoding = PLAIN, overwrite: bool = False, jobs: int | None = None
) -> Result:
    """Write imagenet21k 1.0.0 from a tar of WNID.tar files or a folder of them, in their order.

    Classes are the sorted wnids; the split is described in builders/imagenet21k.py. Raises UserError for bad input or a full disk.
    """
    dataset = imagenet21k.data_set([], encoding)
    if existing := _existing(dataset, data_dir, overwrite):
        return existing
    splits, left_out, classes = imagenet21k_splits(source)
    return _write(imagenet21k.data_set(classes, encoding), data_dir, splits, left_out, overwrite=overwrite, jobs=jobs)


def imagenet21k_splits(source: pathlib.Path) -> tuple[dict[str, Entries], Rows, list[str]]:
    """What the archive or folder holds by split, what was left out, and the classes. Raises UserError where it is no such thing."""
    splits, left_out, classes = _listed(source, imagenet21k.splits)
    if not splits["train"]:
        raise UserError(f"{source} holds no image.")
    return {split: part for split, part in splits.items() if part}, left_out, classes


def prepare_folder(
    *,
    name: str,
    data_dir: pathlib.Path,
    train: pathlib.Path | None = None,
    validation: pathlib.Path | None = None,
    source: pathlib.Path | None = None,
    validation_share: float = 0.1,
    shuffle: bool = True,
    encoding: Encoding = PLAIN,
    overwrite: bool = False,
    jobs: int | None = None,
) -> Result:
    """Write data set `name` from class-per-folder trees or tars of them: `train` and maybe `validation`, or one `source` to split.

    Classes are the sorted folder names. Raises UserError for a bad name, bad input or a full disk.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED:
        raise UserError(
            f"--name={name} cannot name a data set: use lower-case letters, digits and _, beginning with a letter, "
            f"and none of {', '.join(RESERVED)}."
        )
    if (source is None) == (train is None) or (source and validation):
        raise UserError("Name either --train (and --validation), or --source to be split by --validation_share.")
    if not 0 <= validation_share < 1:
        raise UserError(f"--validation_share={validation_share} is no share of the images: use 0 or more and less than 1.")
    if existing := _existing(data_set(name, [], encoding), data_dir, overwrite):
        return existing
    listings = {
        split: _listed(path, class_folders)
        for split, path in (("train", source or train), ("validation", validation))
        if path is not None
    }
    classes = listings["train"].classes
    strange = sorted(set(listings["validation"].classes) - set(classes)) if validation else []
    if strange:
        raise UserError(
            f"{validation} has classes that {train} does not have: {', '.join(strange[:10])}{' ...' if len(strange) > 10 else ''}. "
            "Class folders must have the same names in both."
        )
    splits = {split: listing.entries for split, listing in listings.items()}
    if source:
        splits = {split: part for split, part in split_by_hash(splits["train"], validation_share).items() if part}
    dataset = data_set(name, classes, encoding, shuffled=shuffle)
    return _write(dataset, data_dir, splits, _named(listings), overwrite=overwrite, jobs=jobs)


def prepare_robustness(
    *, name: str, source: pathlib.Path, data_dir: pathlib.Path, overwrite: bool = False, jobs: int | None = None
) -> list[Result]:
    """Write one of papers.SETS, or of "imagenet_c" all corruptions that `source` holds, a data set each; split "test".

    Images are stored as they came. Raises UserError where `source` is no such set, or the disk is too full.
    """
    if name == "imagenet_c":
        parts = _listed(source, robustness.corrupted)
    else:
        if existing := _existing(robustness.data_set(name, []), data_dir, overwrite):
            return [existing]
        parts = {name: _listed(source, functools.partial(robustness.listing, name))}
    results = []
    for part, found in parts.items():
        dataset = robustness.data_set(part, found.classes)
        left_out = _named({papers.SPLIT: found})
        results.append(
            _existing(dataset, data_dir, overwrite)
            or _write(dataset, data_dir, {papers.SPLIT: found.entries}, left_out, overwrite=overwrite, jobs=jobs)
        )
    return results


def prepare_digits(data_dir: pathlib.Path, *, overwrite: bool = False, jobs: int | None = None) -> Result:
    """Write the quickstart data set, scikit-learn's 1,797 digits, through the same path as any class-per-folder tree.

    Raises UserError where scikit-learn is not installed.
    """
    dataset = data_set("digits", digits.CLASSES)
    if existing := _existing(dataset, data_dir, overwrite):
        return existing
    with tempfile.TemporaryDirectory(prefix="digits_") as root:
        digits.write_tree(pathlib.Path(root))
        splits = split_by_hash(class_folders(pathlib.Path(root)).entries, digits.VALIDATION_SHARE)
        return _write(dataset, data_dir, splits, [], overwrite=overwrite, jobs=jobs)


def _listed(path: pathlib.Path, list_one: Callable[[pathlib.Path, Progress], T]) -> T:
    """The listing of one input, with a bar on a terminal: of a tar's bytes, with ETA, or a tree's files, which nobody counted."""
    size = path.stat().st_size if path.is_file() else None
    bar = tqdm(
        total=size,
        desc=f"Listing {path.name}",
        unit="B" if size else " files",
        unit_scale=True,
        disable=None,
        leave=False,
        dynamic_ncols=True,
    )
    try:
        with bar:
            return list_one(path, bar.update)
    except OSError as error:
        raise UserError(f"Cannot read {error.filename or path}: {error.strerror}.") from None


def _named(listings: Mapping[str, Listing]) -> Rows:
    return [(f"{split}/{name}", reason) for split, listing in listings.items() for name, reason in listing.left_out]


def _existing(dataset: DataSet, data_dir: pathlib.Path, overwrite: bool) -> Result | None:
    """What was prepared before, None where there is nothing or it is to be overwritten."""
    directory = dataset.directory(data_dir)
    if overwrite or not directory.exists():
        if dataset.encoding.restart_markers:
            check_markers()  # now, and not after minutes of listing
        return None
    if not (directory / "dataset_info.json").is_file():
        raise UserError(f"{directory} exists, but is no prepared data set. Remove it, or prepare with --overwrite.")
    info = tfds.builder_from_directory(directory).info
    if info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{directory} holds {info.name} as {info.file_format.value if info.file_format else 'unknown'} files, not as "
            "array_record. Prepare into another --data_dir, or replace it with --overwrite."
        )
    return _result(dataset, directory, existed=True)


def _write(
    dataset: DataSet, data_dir: pathlib.Path, splits: Mapping[str, Entries], left_out: Rows, *, overwrite: bool, jobs: int | None
) -> Result:
    ordered = {split: _in_order(split, entries, dataset.shuffled) for split, entries in splits.items()}
    directory = dataset.directory(data_dir)
    with alone(directory.parent, data_dir), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # corrupt EXIF: of no account here, and common
        trade = None if dataset.encoding == PLAIN else measure(next(iter(ordered.values())), dataset)
        partial = Partial(directory, shards.digest(dataset, ordered))
        size = sum(entries.size for entries in ordered.values()) * (trade.size if trade else 1)
        try:
            check_space(data_dir, size + 512 * sum(map(len, ordered.values())), partial.size() + folder_size(directory))
            if overwrite and directory.exists():
                shutil.rmtree(directory)
            shards.write(dataset, ordered, left_out, partial, jobs=jobs or os.cpu_count() or 1)
        except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
            if os.strerror(errno.ENOSPC) not in str(error):
                raise
            raise RunError(
                f"The disk of {data_dir} is full. Free some space and give the same command: it goes on where it stopped. "
                f"Or remove {partial.root}."
            ) from None
        finally:
            partial.tidy()
        partial.publish()
    return dataclasses.replace(_result(dataset, directory, existed=False), trade=trade)


def _in_order(split: str, entries: Entries, shuffled: bool) -> Entries:
    if not entries:
        raise UserError(f"The {split} split would hold no image.")
    order = entries.tfds_order(split)  # finds what is there twice, too
    return entries.select(order) if shuffled else entries


def _result(dataset: DataSet, directory: pathlib.Path, *, existed: bool) -> Result:
    info = tfds.builder_from_directory(directory).info
    features: Any = info.features
    metadata = dict(info.metadata or {})

    def rows(key: str) -> Rows:
        return [(name, what) for name, what in metadata.get(key, [])]

    return Result(
        name=f"{info.name}/{info.config_name}" if info.config_name else info.name,
        version=str(info.version),
        directory=directory,
        existed=existed,
        images={split: part.num_examples for split, part in info.splits.items()},
        classes=tuple(features["label"].names),
        absent=metadata.get("absent", {}),
        left_out=rows("left_out"),
        rewritten=rows("rewritten"),
        unmarked=rows("unmarked"),
        encoding=dataset.encoding,
        image_bytes=metadata.get("image_bytes", {}),
    )
