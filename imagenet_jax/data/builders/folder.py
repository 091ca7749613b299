"""Any class-per-folder data set: the builder, and the split of one source into two."""

import hashlib

import tensorflow_datasets as tfds

from imagenet_jax.data.archives import Entry
from imagenet_jax.data.builders.base import ImagesBuilder


def folder_builder(dataset: str) -> type[ImagesBuilder]:
    """The builder class of the data set of that name: tfds keeps a data set's name in its class."""

    class Folder(ImagesBuilder, skip_registration=True):
        """Images from class folders, written by imagenet_jax."""

        name = dataset
        VERSION = tfds.core.Version("1.0.0")

    return Folder


def split_by_hash(entries: list[Entry], validation_share: float) -> dict[str, list[Entry]]:
    """Train and validation, by a hash of each entry's name alone: an image stays in its split when others come or go."""
    splits: dict[str, list[Entry]] = {"train": [], "validation": []}
    for entry in entries:
        place = int.from_bytes(hashlib.sha256(entry.name.encode()).digest()[:8], "big") / 2**64
        splits["validation" if place < validation_share else "train"].append(entry)
    return splits
