"""Where the bytes of each image lie: lists of tar archives and of class folders, made without unpacking anything.

Archives are hostile until shown otherwise: nothing is ever extracted to disk, links and devices are left out, a name that is
absolute or climbs out with '..' condemns the whole archive, and so does damage or an early end, before anything is written. An
entry (entries.py) holds the position of its bytes, so an inner tar of 150 MB is never held in memory, and any order of reading is
possible.
"""

import io
import os
import pathlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from imagenet_jax.data.storage.entries import Entries
from imagenet_jax.errors import UserError

# And every name that starts with a dot: what file browsers leave behind, and what lies beside the classes of ImageNet-A and -R.
IGNORED = ("thumbs.db", "desktop.ini", "readme.txt")

Progress = Callable[[int], object]  # told what has been passed since the last call: bytes of a tar, files of a tree


class Listing(NamedTuple):
    """What a tree or an archive holds."""

    entries: Entries
    left_out: list[tuple[str, str]]  # (name, reason)
    classes: list[str]  # sorted


class Member(NamedTuple):
    """A member of a tar: `parts` of its path and the place of its bytes in the file."""

    parts: tuple[str, ...]
    offset: int
    size: int
    folder: bool
    refused: str | None  # why its bytes must not be used

    @property
    def name(self) -> str:
        return "/".join(self.parts)


def members(path: pathlib.Path, progress: Progress = lambda passed: None, inside: Member | None = None) -> Iterator[Member]:
    """The members of an uncompressed tar: the file at `path`, or its member `inside`. Offsets count from the start of the file.

    Raises UserError where it is no tar, is damaged or ends early, or holds a name that leaves its folder.
    """
    with open(path, "rb") as file:
        if inside:
            window = io.BufferedReader(_Window(file.fileno(), inside.offset, inside.size))
            yield from _members(window, f"{inside.name} in {path}", inside.offset, progress)
        else:
            yield from _members(file, str(path), 0, progress)


class _Window(io.RawIOBase):
    """A part of an open file as a file of its own."""

    def __init__(self, descriptor: int, offset: int, size: int):
        self._descriptor, self._offset, self._size, self._at = descriptor, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._descriptor, max(0, min(len(buffer), self._size - self._at)), self._offset + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _members(file: IO[bytes], what: str, offset: int, progress: Progress) -> Iterator[Member]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            at = 0
            while (info := tar.next()) is not None:
                # TarFile keeps every header that it passed: 2 GB for a flat tar of 1.28 million files.
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                progress(tar.offset - at)
                at = tar.offset
                parts = _safe_parts(info.name, what)
                if parts and not _ignored(parts):
                    yield Member(parts, offset + info.offset_data, info.size, info.isdir(), _refused(info))
            _check_end(file, tar.offset, what)
    except tarfile.ReadError as error:
        raise UserError(f"{what} is not a whole, uncompressed tar archive ({error}). {_tar_remedy(file)}") from None


def class_folders(path: pathlib.Path, progress: Progress = lambda passed: None) -> Listing:
    """The images of a class-per-folder tree, or of a .tar of one: the first folder is the class, what lies deeper belongs to it.

    A tar may hold all its class folders in one common folder. Raises UserError for a path that is neither, a tree without class
    folders, a file beside them, or a class folder with no file in it.
    """
    if path.is_dir():
        listing = _tree(path, progress)
    elif path.is_file():
        listing = _tar_of_folders(path, progress)
    else:
        raise UserError(f"{path} does not exist. Name a folder with one folder a class in it, or a .tar of one.")
    if not listing.classes:
        raise UserError(f"{path} has no class folders. Expected: CLASS/IMAGE, one folder a class.")
    filled = listing.entries.labels() | {name.split("/")[0] for name, _ in listing.left_out}
    empty = [name for name in listing.classes if name not in filled]
    if empty:
        raise UserError(
            f"{path} has class folders without a file: {', '.join(empty[:10])}{' ...' if len(empty) > 10 else ''}. "
            "Put images into them, or remove them if they are no classes."
        )
    return listing


def _tree(root: pathlib.Path, progress: Progress) -> Listing:
    entries, left_out, classes = Entries(), [], []

    def fail(error: OSError) -> None:  # os.walk passes over what it cannot read
        raise error

    for item in sorted(root.iterdir()):
        if _ignored((item.name,)):
            continue
        if not item.is_dir():
            raise UserError(f"{item} lies beside the class folders. Expected: CLASS/IMAGE, one folder a class; move it away.")
        label = _text(item.name)
        classes.append(label)
        for folder, inner, files in os.walk(item, onerror=fail):
            inner[:] = sorted(name for name in inner if not _ignored((name,)))
            progress(len(files))
            for file in sorted(files):
                if _ignored((file,)):
                    continue
                full = os.path.join(folder, file)
                name = _text(os.path.relpath(full, root).replace(os.sep, "/"))
                if os.path.isfile(full):  # follows links: these are the user's own
                    entries.add(name, label, full, 0, os.path.getsize(full))
                else:
                    left_out.append((name, "a broken link or no regular file"))
    return Listing(entries, left_out, sorted(classes))


def _tar_of_folders(path: pathlib.Path, progress: Progress) -> Listing:
    found, refused = Entries(), []
    folders: set[tuple[str, ...]] = set()
    tops: set[str] = set()
    depths: set[int] = set()
    for member in members(path, progress):
        tops.add(member.parts[0])
        if member.folder:
            folders.add(member.parts)
            continue
        depths.add(len(member.parts))
        if member.refused:
            refused.append((member.parts, member.refused))
        else:
            found.add(member.name, "", str(path), member.offset, member.size)
    # One folder around all: 'train/cat/1.jpg'. A tar of one class alone ('cat/1.jpg') has its files one level higher.
    common = 1 if len(tops) == 1 and depths and min(depths) >= 3 else 0
    entries = Entries()
    classes = {parts[common] for parts in folders if len(parts) > common}
    for entry in found:
        parts = _in_class(entry.name.split("/"), common, path)
        classes.add(parts[0])
        entries.add("/".join(parts), parts[0], entry.path, entry.offset, entry.size)
    left_out = [("/".join(_in_class(parts, common, path)), reason) for parts, reason in refused]
    return Listing(entries, left_out, sorted(classes | {name.split("/")[0] for name, _ in left_out}))


def _in_class(parts: Sequence[str], common: int, path: pathlib.Path) -> Sequence[str]:
    if len(parts) < common + 2:
        raise UserError(f"{path} holds {'/'.join(parts)} beside its class folders. Expected: CLASS/IMAGE, one folder a class.")
    return parts[common:]


def _safe_parts(name: str, what: str) -> tuple[str, ...]:
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise UserError(f"{what} holds {name!r}, which leads out of its folder. Do not trust this file; none of it was used.")
    return tuple(_text(part) for part in name.split("/") if part not in ("", "."))


def _ignored(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part.lower() in IGNORED for part in parts)


def _text(name: str) -> str:
    """Bytes of a file name that are no UTF-8 come as surrogates, which no tfds text holds."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _refused(info: tarfile.TarInfo) -> str | None:
    if info.isdir():
        return None
    if info.issym() or info.islnk():
        return "a link inside an archive"
    if not info.isreg() or info.issparse():
        return "no plain file"
    return None


def _check_end(file: IO[bytes], offset: int, what: str) -> None:
    """tarfile takes a damaged header, or a cut between two members, for the end; a whole archive ends in a block of zeros."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it ends early or is damaged at byte {offset:,}")


def _tar_remedy(file: IO[bytes]) -> str:
    file.seek(0)
    start = file.read(6)
    if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start == b"\xfd7zXZ\0":
        return "It is compressed: unpack it with gunzip, bunzip2 or unxz first."
    return "If it was downloaded, compare its size with the source's and download it again."
