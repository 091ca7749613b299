"""Files in object stores - gs://, s3:// and every other scheme that fsspec knows: listed, read by byte ranges, fetched.

Each request is tried five times; whatever still fails ends in an error that names the URL. A read waits for the network and not for
a core: give a run that reads in place several data.threads a core.
"""

import concurrent.futures
import dataclasses
import fnmatch
import functools
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from imagenet_jax.errors import RunError, UserError

TRIES = 5
FIRST_WAIT = 0.5  # seconds; twice as long after each further try, 7.5 in all
AT_A_TIME = 8  # files under way in a fetch: object stores give about 100 MB/s a connection
BLOCK = 16 << 20  # bytes a request of a fetch
LISTINGS = 32  # folders listed at a time
STAMPS = ("generation", "ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created")  # what stores call them
EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}  # scheme -> extra of ours that brings its client

# No second try cures these.
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)

T = TypeVar("T")


class Stat(NamedTuple):
    """What tells one state of a file from another."""

    size: int  # bytes
    stamp: str  # changes when the content does: a generation, an ETag, a time


@dataclasses.dataclass(frozen=True)
class Url:
    """A remote folder or file, with the few methods of pathlib that finding a data set takes. No slash at the end."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> "Url":
        return Url(f"{self.text}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> "Url":
        """All but the last part."""
        return Url(self.text.rpartition("/")[0])

    def absolute(self) -> "Url":
        """Itself."""
        return self

    def is_dir(self) -> bool:
        """Whether something lies below it: object stores have no folders of their own."""
        return bool(entries(self))

    def glob(self, pattern: str) -> list["Url"]:
        """What matches `pattern` below it, sorted."""
        found: list[Url] = [self]
        for part in pattern.split("/"):
            found = [url / name for url in found for name in entries(url) if fnmatch.fnmatchcase(name, part)]
        return found


def read(url: str, offset: int = 0, size: int | None = None) -> bytes:
    """`size` bytes from `offset` on, or the whole file."""
    system, path = _system(url)

    def get() -> bytes:
        if size is None:
            return system.cat_file(path)
        data = system.cat_file(path, start=offset, end=offset + size)
        if len(data) != size:
            raise OSError(f"{len(data):,} of {size:,} bytes came")
        return data

    return retried(url, get)


def entries(folder: Url) -> dict[str, Stat | None]:
    """What lies in `folder` itself, sorted: name -> None for a folder. Nothing, where there is no such folder."""
    system, path = _system(folder.text)

    def ls() -> list[dict[str, Any]]:
        try:
            return system.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []

    found = {}
    for info in retried(folder.text, ls):
        name = info["name"].rstrip("/")
        if name != path.rstrip("/"):  # the mark that some tools leave for a folder, or a file asked for as if it were one
            stamp = next((str(info[key]) for key in STAMPS if info.get(key)), "")
            found[name.rpartition("/")[2]] = None if info["type"] == "directory" else Stat(int(info["size"]), stamp)
    return dict(sorted(found.items()))


def files(folder: Url) -> dict[str, Stat]:
    """Every file below `folder`, by its name relative to it. (fsspec's own `find` passes over a folder that fails to be listed.)"""
    found: dict[str, Stat] = {}
    level = [""]
    with concurrent.futures.ThreadPoolExecutor(LISTINGS) as pool:
        while level:
            listed = pool.map(lambda prefix: entries(Url(f"{folder}/{prefix}".rstrip("/"))), level)
            inside = {f"{prefix}{name}": stat for prefix, each in zip(level, listed, strict=True) for name, stat in each.items()}
            found |= {name: stat for name, stat in inside.items() if stat is not None}
            level = [f"{name}/" for name, stat in inside.items() if stat is None]
    return dict(sorted(found.items()))


def retried(url: str, action: Callable[[], T]) -> T:
    """What `action` returns. Raises UserError for a file that is not there or not ours to read, RunError after the last try."""
    for attempt in range(TRIES):
        try:
            return action()
        except FINAL as error:
            raise UserError(f"{url} cannot be read: {error!r}. Check the name, and the credentials of this machine.") from error
        except Exception as error:  # each client has its own kinds for a lost connection, a time-out, or "too many requests"
            if attempt == TRIES - 1:
                raise RunError(f"{url} cannot be read, {TRIES} tries: {error!r}. Check the network and the store.") from error
            time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and its path in it."""
    scheme, _, rest = url.partition("://")
    system = _connected(f"{scheme}://{rest.partition('/')[0]}")
    return system, system._strip_protocol(url)


@functools.cache  # fsspec's own cache makes another client for each thread
def _connected(root: str) -> Any:
    import fsspec

    scheme = root.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(root, use_listings_cache=False)[0]  # a kilobyte a file, and stale
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        remedy = f"pip install 'imagenet_jax[{extra}]'" if extra else str(error)
        raise UserError(f"{root} needs a client that is not installed: {remedy}.") from None
    except ValueError as error:
        raise UserError(f"{root} cannot be opened: {error}.") from None


def fetch(folder: Url, wanted: dict[str, Stat], target: pathlib.Path) -> None:
    """Copy `wanted` files of `folder` into the local `target`, but for those that an earlier call brought.

    A file that comes whole, and only such a one, gets its name. Raises UserError where the disk has no room, RunError where a
    file does not come.
    """
    journal = target / "fetched.journal"  # name -> size and stamp there, of what lies here
    try:
        known = {name: Stat(*stat) for name, stat in json.loads(journal.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        known = {}
    missing = {n: s for n, s in wanted.items() if known.get(n) != s or not _has(target / n, s.size)}
    total = sum(s.size for s in missing.values())
    free = shutil.disk_usage(target).free + sum((target / n).stat().st_size for n in missing if (target / n).is_file())
    if total > free:
        raise UserError(
            f"{target} has {free / 1e9:,.2f} GB free; {len(missing):,} files of {folder} need {total / 1e9:,.2f} GB. "
            "Free some, or set XDG_CACHE_HOME to a directory on a larger disk."
        )
    if not missing:
        return
    if total > BLOCK:
        print(f"Fetching {len(missing):,} files ({total / 1e9:,.2f} GB) of {folder} into {target}, once.", flush=True)
    bar = tqdm(total=total, desc="fetch", unit="B", unit_scale=True, leave=False, disable=total <= BLOCK or not sys.stderr.isatty())
    pool = concurrent.futures.ThreadPoolExecutor(AT_A_TIME)
    try:
        tasks = {pool.submit(_fetch_one, str(folder / n), s.size, target / n, bar.update): n for n, s in missing.items()}
        for task in concurrent.futures.as_completed(tasks):
            task.result()
            known[tasks[task]] = missing[tasks[task]]
            _replace(journal, json.dumps(known).encode())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        bar.close()


def _fetch_one(url: str, size: int, target: pathlib.Path, progress: Callable[[int], object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=".part_", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for offset in range(0, size, BLOCK):
                file.write(read(url, offset, min(BLOCK, size - offset)))
                progress(min(BLOCK, size - offset))
        os.replace(part, target)
    except OSError as error:
        raise RunError(f"{url} cannot be kept in {target.parent}: {error.strerror}.") from None
    finally:
        pathlib.Path(part).unlink(missing_ok=True)


def _has(path: pathlib.Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _replace(path: pathlib.Path, content: bytes) -> None:
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(content)
    os.replace(part, path)
