"""Plain folders as a data set, nothing prepared: PATH/SPLIT/CLASS/IMAGE, local or remote. What lies deeper belongs to its class.

Order and labels are sorted names, so the same files are the same data set everywhere. A name costs its bytes and 12 more.
"""

import concurrent.futures
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from imagenet_jax.data import order
from imagenet_jax.data.labels.classes import readable
from imagenet_jax.data.reading.records import AS_THEY_CAME, Record, Source
from imagenet_jax.data.storage import archives, locate, remote
from imagenet_jax.data.storage.locate import Place
from imagenet_jax.data.storage.remote import Url
from imagenet_jax.errors import UserError

VERSION = "folder"  # of every plain folder: it has no other
ALSO = {"validation": ("val", "valid")}  # what the folder of a split may be called instead
SAMPLE = 16  # files whose content goes into the fingerprint
THREADS = 16  # listing waits for the disk


def open_folder(path: str, split: str) -> Source:
    """The split of the folder `path`; labels are places among the sorted class folders of its train split.

    A folder without a train split is numbered by the class folders of `split` itself. Raises UserError for a path or split that
    is not there, files beside the class folders, a class folder without files or one that the train split lacks.
    """
    try:
        return _open(locate.place(path).absolute(), split)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from None


def _open(root: Place, split: str) -> Source:
    if not root.is_dir():
        raise UserError(f"{root} is no folder. A plain data set is PATH/SPLIT/CLASS/IMAGE, such as {root}/train/cat/1.jpg.")
    splits = [name for name, is_folder in _entries(root).items() if is_folder]
    chosen = next((name for name in (split, *ALSO.get(split, ())) if name in splits), None)
    if chosen is None:
        slices = " Only prepared data sets have slices." if re.search(r"[\[+]", split) else ""
        raise UserError(f"{root} has no split {split!r}. Its folders: {', '.join(splits) or 'none'}.{slices}")
    folder = root / chosen
    own = _classes(folder)
    classes = _classes(root / "train") if "train" in splits else own
    if strange := sorted(set(own) - set(classes)):
        raise UserError(f"{folder} has class folders that {root / 'train'} lacks: {_few(strange)}.")
    listing, labels = _listing(folder, own, classes)
    records = FolderRecords(folder, listing.names, np.cumsum(listing.lengths, dtype=np.int64), labels)
    digest = hashlib.sha256("\0".join(map(_text, classes)).encode())
    digest.update(listing.names)
    for numbers in (listing.lengths, labels, listing.sizes):
        digest.update(numbers.data)
    for i in order.permute(np.arange(min(SAMPLE, len(records))), len(records), 0):
        digest.update(hashlib.sha256(records[int(i)].image).digest())
    return Source(
        dataset=str(root),
        version=VERSION,
        split=split,
        classes=tuple(readable([_text(name) for name in classes])),
        fingerprint=digest.hexdigest(),
        encoding=AS_THEY_CAME,
        nbytes=int(listing.sizes.sum()),
        records=records,
    )


class FolderRecords:
    """len() and [i] -> Record: the content of a file."""

    def __init__(self, folder: Place, names: bytes, ends: np.ndarray, labels: np.ndarray):
        self._folder, self._names, self._ends, self._labels = folder, names, ends, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        name = self._names[self._ends[index - 1] if index else 0 : self._ends[index]]
        if isinstance(self._folder, Url):
            image = remote.read(str(self._folder / name.decode()))
        else:
            with open(os.path.join(os.fsencode(self._folder), name), "rb", buffering=0) as file:
                image = file.read()
        return Record(image, int(self._labels[index]), name.decode("utf-8", "replace"))


class Listing(NamedTuple):
    """Files of one class or of all, sorted, without an object for each."""

    names: bytes  # CLASS/IMAGE, joined
    lengths: np.ndarray  # int32, of each name
    sizes: np.ndarray  # int64, bytes of each file


def _listing(folder: Place, own: list[str], classes: list[str]) -> tuple[Listing, np.ndarray]:
    """All files, and the label of each (int32)."""
    if isinstance(folder, Url):
        found = _remote_files(folder, own)
    else:
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(lambda name: _compact(_local_files(os.path.join(folder, name), f"{name}/")), own))
    if empty := [name for name, files in zip(own, found, strict=True) if not len(files.sizes)]:
        raise UserError(f"{folder} has class folders without a file: {_few(empty)}. Put images into them, or remove them.")
    names, lengths, sizes = zip(*found, strict=True)
    label = {name: i for i, name in enumerate(classes)}
    labels = np.repeat(np.array([label[name] for name in own], np.int32), list(map(len, sizes)))
    return Listing(b"".join(names), np.concatenate(lengths), np.concatenate(sizes)), labels


def _compact(files: Iterable[tuple[bytes, int]]) -> Listing:
    pairs = sorted(files)
    lengths, sizes = [len(name) for name, _ in pairs], [size for _, size in pairs]
    return Listing(b"".join(name for name, _ in pairs), np.array(lengths, np.int32), np.array(sizes, np.int64))


def _local_files(folder: str, prefix: str) -> Iterator[tuple[bytes, int]]:
    """(prefix + name, size) of each file below a class folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _ignored(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _local_files(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():  # follows links: these are the user's own
                yield os.fsencode(prefix + entry.name), entry.stat().st_size
            else:
                raise UserError(f"{entry.path} is no file: a broken link, a link to a folder, or a device. Remove it.")


def _remote_files(folder: Url, own: list[str]) -> list[Listing]:
    found: dict[str, list[tuple[bytes, int]]] = {name: [] for name in own}
    for name, stat in remote.files(folder).items():
        parts = name.split("/")
        if not any(_ignored(part) for part in parts):
            found[parts[0]].append((name.encode(), stat.size))
    return [_compact(found[name]) for name in own]


def _classes(folder: Place) -> list[str]:
    found = _entries(folder)
    if files := [name for name, is_folder in found.items() if not is_folder]:
        raise UserError(f"{folder} has {_few(files)} beside its class folders. Expected: CLASS/IMAGE, one folder a class.")
    if not found:
        raise UserError(f"{folder} has no class folders. Expected: CLASS/IMAGE, one folder a class.")
    return list(found)


def _entries(place: Place) -> dict[str, bool]:
    """What lies in `place`, sorted: name -> whether it is a folder."""
    if isinstance(place, Url):
        found = {name: stat is None for name, stat in remote.entries(place).items()}
    else:
        found = {entry.name: entry.is_dir() for entry in os.scandir(place)}
    return {name: found[name] for name in sorted(found) if name and not _ignored(name)}


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in archives.IGNORED


def _text(name: str) -> str:
    """Bytes of a file name that are no UTF-8 come as surrogates, which no JSON holds."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _few(names: list[str]) -> str:
    return ", ".join(map(_text, names[:10])) + (" ..." if len(names) > 10 else "")
