"""imagenet21k from the archive that image-net.org hands out (winter21_whole, fall11_whole): one tar of one tar a class.

The archive has no validation split. Ours: of the n images of a class, the min(50, n // 10) whose file names have the smallest
sha256. It depends on the names within the class alone, not on their order or on other classes.
"""

import hashlib
import pathlib
import re
from collections.abc import Iterator

from imagenet_jax.data.preparing.shards import DataSet, Rows
from imagenet_jax.data.storage.archives import Member, Progress, members
from imagenet_jax.data.storage.encoding import Encoding
from imagenet_jax.data.storage.entries import Entries
from imagenet_jax.errors import UserError


def data_set(classes: list[str], encoding: Encoding) -> DataSet:
    """Version 1.0.0; the records lie in the order of the archive, since training permutes them anyway."""
    return DataSet(
        name="imagenet21k",
        version="1.0.0",
        description="ImageNet-21K, written by imagenet_jax from one tar a class. Validation: of the n images of a class, the "
        "min(50, n // 10) whose file names have the smallest sha256.",
        classes=classes,
        only_jpeg=True,
        homepage="https://image-net.org/",
        shuffled=False,
        encoding=encoding,
    )


def splits(path: pathlib.Path, progress: Progress) -> tuple[dict[str, Entries], Rows, list[str]]:
    """Train and validation, what was left out of them, and the classes (sorted wnids), by the headers of the archives alone.

    `path` is a tar of WNID.tar files, or a folder of them. Raises UserError for anything else in it, or a damaged tar.
    """
    parts = {"train": Entries(), "validation": Entries()}
    left_out: Rows = []
    classes: set[str] = set()
    for file, inner in _class_tars(path, progress):
        wnid = (inner.parts[-1] if inner else file.name)[:-4]
        if wnid in classes:
            raise UserError(f"{path} holds {wnid}.tar twice.")
        classes.add(wnid)
        images = []
        for image in members(file, inside=inner):
            if image.refused:
                left_out.append((f"train/{image.parts[-1]}", image.refused))
            elif not image.folder:
                images.append(image)
        held_out = _validation([image.parts[-1] for image in images])
        for image in images:
            part = parts["validation" if image.parts[-1] in held_out else "train"]
            part.add(image.parts[-1], wnid, str(file), image.offset, image.size)
    if not classes:
        raise UserError(
            f"{path} holds no WNID.tar, such as n01440764.tar. Name the archive of them, or the folder they were unpacked into."
        )
    return parts, left_out, sorted(classes)


def _validation(names: list[str]) -> set[str]:
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(ranked[: min(50, len(names) // 10)])


def _class_tars(path: pathlib.Path, progress: Progress) -> Iterator[tuple[pathlib.Path, Member | None]]:
    """(file, None) for a tar in a folder, (archive, member) for one inside another."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if not file.name.startswith("."):
                _check(file.name, file.is_file(), path)
                progress(1)
                yield file, None
    elif path.is_file():
        for member in members(path, progress):
            if not member.folder:
                _check(member.parts[-1], not member.refused, path)
                yield path, member
    else:
        raise UserError(f"{path} does not exist. Name the archive of WNID.tar files, or the folder they were unpacked into.")


def _check(name: str, plain: bool, path: pathlib.Path) -> None:
    if not plain or not re.fullmatch(r"n\d{8}\.tar", name):
        raise UserError(
            f"{path} holds {name!r}, but should hold WNID.tar files alone, one a class. Is it the archive from image-net.org? "
            "Class folders of images, or a tar of them, are prepared with: prepare folder --source=PATH."
        )
