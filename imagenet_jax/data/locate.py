"""Where prepared data sets lie. The one rule that preparing and reading share."""

import os
import pathlib

TFDS_DEFAULT = "~/tensorflow_datasets"


def data_dir(flag: str | None) -> pathlib.Path:
    """The data directory: `flag` (--data_dir), else the environment's TFDS_DATA_DIR, else tfds' own default.

    Read at the time of the call: tfds itself reads the environment only once, when it is imported.
    """
    return pathlib.Path(flag or os.environ.get("TFDS_DATA_DIR") or TFDS_DEFAULT).expanduser()
