"""imagenet2012 5.1.0 from the official tars: what they hold. Same features and labels as in the tfds catalogue.

Where it differs from the catalogue's builder: either tar alone works, a validation label goes by the number in the file name and
not by the file's position, and files that need rewriting are found by content.
"""

import pathlib
import re

import tensorflow_datasets as tfds

from imagenet_jax.data.labels import classes
from imagenet_jax.data.preparing.shards import DataSet
from imagenet_jax.data.storage.archives import Listing, Progress, members
from imagenet_jax.data.storage.encoding import Encoding
from imagenet_jax.data.storage.entries import Entries
from imagenet_jax.errors import UserError

TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
OFFICIAL = {"train": 1_281_167, "validation": 50_000}  # images


def data_set(encoding: Encoding, *, shuffled: bool) -> DataSet:
    """The catalogue's name and version, 1,000 classes by wnid."""
    return DataSet(
        name="imagenet2012",
        version="5.1.0",
        description="ILSVRC 2012, written by imagenet_jax from the official tar files.",
        classes=classes.wnids(),
        only_jpeg=True,
        homepage="https://image-net.org/",
        shuffled=shuffled,
        encoding=encoding,
    )


def train_listing(path: pathlib.Path, progress: Progress) -> Listing:
    """The images in a tar of one tar a class, WNID.tar."""
    known = {f"{wnid}.tar": wnid for wnid in classes.wnids()}
    entries = Entries()
    left_out: list[tuple[str, str]] = []
    for inner in members(path, progress):
        if inner.folder:
            continue
        wnid = known.get(inner.parts[-1])
        if wnid is None or inner.refused:
            raise UserError(
                f"{path} holds {inner.name!r}, but should hold one WNID.tar for each of the 1000 classes of ILSVRC 2012. "
                "Is it the file from image-net.org? A tar of class folders is prepared with: prepare folder --train=FILE."
            )
        for image in members(path, inside=inner):
            if image.refused:
                left_out.append((image.parts[-1], image.refused))
            elif not image.folder:
                entries.add(image.parts[-1], wnid, str(path), image.offset, image.size)
    return Listing(entries, left_out, sorted(entries.labels()))


def validation_listing(path: pathlib.Path, progress: Progress) -> Listing:
    """The images in the flat validation tar, or in any tar of files with the official names."""
    labels = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()  # of 1, 2, ... 50,000
    entries = Entries()
    left_out: list[tuple[str, str]] = []
    for image in members(path, progress):
        name = image.parts[-1]
        match = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", name)
        number = int(match[1]) if match else 0
        if image.folder:
            continue
        if image.refused:
            left_out.append((name, image.refused))
        elif not 1 <= number <= len(labels):
            left_out.append((name, "label unknown: the name is not ILSVRC2012_val_NNNNNNNN.JPEG with a number up to 50000"))
        else:
            entries.add(name, labels[number - 1], str(path), image.offset, image.size)
    return Listing(entries, left_out, sorted(entries.labels()))
