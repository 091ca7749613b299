"""Preparing data sets: from the user's tars and folders to tfds directories of array_record files.

Everything that can be known beforehand is checked before anything is written: names, tars, classes, free space. tfds writes into
NAME/incomplete.*, and renames that at the end, so that an interrupted run leaves nothing that looks finished.
"""

import contextlib
import dataclasses
import errno
import fcntl
import io
import os
import pathlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from imagenet_jax.data.archives import Entry, Listing, Progress, class_folders
from imagenet_jax.data.builders import digits, imagenet2012
from imagenet_jax.data.builders.base import ImagesBuilder
from imagenet_jax.data.builders.folder import folder_builder, split_by_hash
from imagenet_jax.data.classes import wnids
from imagenet_jax.errors import RunError, UserError

RESERVED = ("imagenet2012", "digits", "downloads")  # the last: tfds' own folder among the data sets


@dataclasses.dataclass(frozen=True)
class Result:
    """What lies on disk after preparing, as read back from there."""

    name: str
    version: str
    directory: pathlib.Path
    existed: bool  # nothing was done: it was prepared before
    images: dict[str, int]  # by split
    classes: tuple[str, ...]
    absent: dict[str, list[str]]  # by split: classes of which it holds no image
    left_out: list[tuple[str, str]]  # ('SPLIT/NAME', reason)
    rewritten: list[tuple[str, str]]  # ('SPLIT/NAME', what it was)


def prepare_imagenet2012(
    *, manual_dir: pathlib.Path, data_dir: pathlib.Path, shuffle: bool = True, overwrite: bool = False, jobs: int | None = None
) -> Result:
    """Write imagenet2012 5.1.0 from the official tars in `manual_dir`; either of the two is enough.

    Raises UserError where both are missing, one is no such tar, or the disk is too full.
    """
    if existing := _existing(data_dir, "imagenet2012", "5.1.0", overwrite):
        return existing
    tars = {split: manual_dir / tar for split, tar in imagenet2012.TARS.items()}
    if not any(tar.is_file() for tar in tars.values()):
        raise UserError(
            f"Neither {' nor '.join(imagenet2012.TARS.values())} is in {manual_dir}. Download them from https://image-net.org "
            "(ILSVRC 2012, task 1; needs a login), put them into that folder as they are, or name another with --manual_dir. "
            "Either one alone works too."
        )
    list_one = {"train": imagenet2012.train_listing, "validation": imagenet2012.validation_listing}
    listings = {split: _listed(tar, list_one[split]) for split, tar in tars.items() if tar.is_file()}
    return _write(
        imagenet2012.Imagenet2012,
        data_dir,
        {split: listing.entries for split, listing in listings.items()},
        wnids(),
        left_out=_named(listings),
        shuffle=shuffle,
        overwrite=overwrite,
        jobs=jobs,
    )


def prepare_folder(
    *,
    name: str,
    data_dir: pathlib.Path,
    train: pathlib.Path | None = None,
    validation: pathlib.Path | None = None,
    source: pathlib.Path | None = None,
    validation_share: float = 0.1,
    shuffle: bool = True,
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
    if existing := _existing(data_dir, name, "1.0.0", overwrite):
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
    options = {"shuffle": shuffle, "overwrite": overwrite, "jobs": jobs}
    return _write(folder_builder(name), data_dir, splits, classes, left_out=_named(listings), **options)


def prepare_digits(data_dir: pathlib.Path, *, overwrite: bool = False, jobs: int | None = None) -> Result:
    """Write the quickstart data set, scikit-learn's 1,797 digits, through the same path as any class-per-folder tree.

    Raises UserError where scikit-learn is not installed.
    """
    if existing := _existing(data_dir, "digits", "1.0.0", overwrite):
        return existing
    with tempfile.TemporaryDirectory(prefix="digits_") as root:
        digits.write_tree(pathlib.Path(root))
        entries = class_folders(pathlib.Path(root)).entries
        splits = split_by_hash(entries, digits.VALIDATION_SHARE)
        return _write(folder_builder("digits"), data_dir, splits, digits.CLASSES, overwrite=overwrite, jobs=jobs)


def _listed(path: pathlib.Path, list_one: Callable[[pathlib.Path, Progress], Listing]) -> Listing:
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


def _named(listings: Mapping[str, Listing]) -> list[tuple[str, str]]:
    return [(f"{split}/{name}", reason) for split, listing in listings.items() for name, reason in listing.left_out]


def _existing(data_dir: pathlib.Path, name: str, version: str, overwrite: bool) -> Result | None:
    """What was prepared before, None where there is nothing or it is to be overwritten."""
    directory = data_dir / name / version
    if overwrite or not directory.exists():
        return None
    if not (directory / "dataset_info.json").is_file():
        raise UserError(f"{directory} exists, but is no prepared data set. Remove it, or prepare with --overwrite.")
    info = tfds.builder_from_directory(directory).info
    if info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{directory} holds {name} as {info.file_format.value if info.file_format else 'unknown'} files, not as array_record. "
            "Prepare into another --data_dir, or replace it with --overwrite."
        )
    return _result(directory, existed=True)


def _write(
    builder: type[ImagesBuilder],
    data_dir: pathlib.Path,
    splits: Mapping[str, Sequence[Entry]],
    classes: Sequence[str],
    *,
    left_out: Sequence[tuple[str, str]] = (),
    shuffle: bool = True,
    overwrite: bool,
    jobs: int | None,
) -> Result:
    for split, entries in splits.items():
        _check_names(split, entries)
    family = data_dir / builder.name
    directory = family / str(builder.VERSION)
    with _alone(family):
        for leftover in family.glob(f"incomplete.*_{directory.name}"):
            shutil.rmtree(leftover)
        _check_space(data_dir, directory, sum(entry.size + 512 for entries in splits.values() for entry in entries))
        if directory.exists():
            shutil.rmtree(directory)
        writer = builder(data_dir=data_dir, splits=splits, classes=classes, left_out=left_out, shuffle=shuffle, jobs=jobs)
        with tempfile.TemporaryDirectory() as downloads, _quiet():  # tfds insists on a folder for downloads, and on chatting
            try:
                writer.download_and_prepare(download_dir=downloads)
            except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
                if os.strerror(errno.ENOSPC) not in str(error):
                    raise
                raise RunError(f"The disk of {data_dir} is full. What was written has been removed; nothing is prepared.") from None
    return _result(directory, existed=False)


def _check_names(split: str, entries: Sequence[Entry]) -> None:
    if not entries:
        raise UserError(f"The {split} split would hold no image.")
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise UserError(f"{entry.path} holds {entry.name} twice. Every image of a split needs a name of its own.")
        seen.add(entry.name)


@contextlib.contextmanager
def _alone(family: pathlib.Path) -> Iterator[None]:
    """Keep other prepare commands away from this data set: each removes what it takes for leftovers."""
    try:
        family.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to {family}: {error.strerror}. Name another place with --data_dir.") from None
    descriptor = os.open(family, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process is preparing {family}. Wait for it, or end it first.") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            family.rmdir()  # only where it is empty: after an error


def _check_space(data_dir: pathlib.Path, old: pathlib.Path, size: int) -> None:
    """Images are stored as they are and shuffling takes no space (builders/base); 5 % and 16 MB are for what lies around them."""
    freed = sum(file.stat().st_size for file in old.rglob("*") if file.is_file()) if old.exists() else 0
    free = shutil.disk_usage(data_dir).free + freed
    needed = int(size * 1.05) + 16 * 10**6
    if free < needed:
        raise UserError(
            f"{data_dir} has {free / 1e9:,.2f} GB free; the data set needs {needed / 1e9:,.2f} GB there. "
            "Free some, or use another disk with --data_dir."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # corrupt EXIF: of no account here, and common
        yield


def _result(directory: pathlib.Path, *, existed: bool) -> Result:
    info = tfds.builder_from_directory(directory).info
    features: Any = info.features
    metadata = dict(info.metadata or {})
    return Result(
        name=info.name,
        version=str(info.version),
        directory=directory,
        existed=existed,
        images={split: part.num_examples for split, part in info.splits.items()},
        classes=tuple(features["label"].names),
        absent=metadata.get("absent", {}),
        left_out=[(name, reason) for name, reason in metadata.get("left_out", [])],
        rewritten=[(name, was) for name, was in metadata.get("rewritten", [])],
    )
