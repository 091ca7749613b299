"""Any class-per-folder data set: what it is called, and the split of one source into two."""

import hashlib
from collections.abc import Sequence

import numpy as np

from imagenet_jax.data.preparing.shards import DataSet
from imagenet_jax.data.storage.encoding import PLAIN, Encoding
from imagenet_jax.data.storage.entries import Entries


def data_set(name: str, classes: Sequence[str], encoding: Encoding = PLAIN, *, shuffled: bool = True) -> DataSet:
    """Version 1.0.0 of the data set of that name."""
    about = "Images from class folders, written by imagenet_jax."
    return DataSet(name, "1.0.0", about, classes, shuffled=shuffled, encoding=encoding)


def split_by_hash(entries: Entries, validation_share: float) -> dict[str, Entries]:
    """Train and validation, by a hash of each entry's name alone: an image stays in its split when others come or go."""
    first = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in entries.names())
    validation = np.fromiter(first, float, len(entries)) < validation_share
    return {"train": entries.select(~validation), "validation": entries.select(validation)}
