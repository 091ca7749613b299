"""Where things lie: prepared data sets, and what this user's machine keeps of them. The rules that preparing and reading share."""

import os
import pathlib

from imagenet_jax.data.storage.remote import Url
from imagenet_jax.errors import UserError

TFDS_DEFAULT = "~/tensorflow_datasets"

Place = pathlib.Path | Url  # both have / name parent glob is_dir absolute and str()


def data_dir(flag: str | None) -> Place:
    """The data directory: `flag` (--data_dir), else the environment's TFDS_DATA_DIR, else tfds' own default.

    Read at the time of the call: tfds itself reads the environment only once, when it is imported.
    """
    return place(flag or os.environ.get("TFDS_DATA_DIR") or TFDS_DEFAULT)


def local_data_dir(flag: str | None) -> pathlib.Path:
    """The same, to write into. Raises UserError for a remote one."""
    found = data_dir(flag)
    if isinstance(found, Url):
        raise UserError(f"{found} is remote: prepare into a local --data_dir, then copy the data set there.")
    return found


def place(text: str) -> Place:
    """`text` as a remote place where it has a scheme such as gs://, else as a local path."""
    return Url(text.rstrip("/")) if "://" in text else pathlib.Path(text).expanduser()


def user_cache(name: str) -> pathlib.Path:
    """Where this user's own cache for `name` lies, whether it is there or not: XDG_CACHE_HOME/imagenet_jax/NAME."""
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return base / "imagenet_jax" / name


def private(folder: pathlib.Path) -> pathlib.Path:
    """`folder`, made if it is absent, for this user alone (mode 0700)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}. Set XDG_CACHE_HOME to a directory that can.") from None
    return folder
