"""What every source of images gives the loader: records by example id, and what identifies them."""

import dataclasses
from typing import Any, NamedTuple, Protocol

from imagenet_jax.data.storage.encoding import PLAIN
from imagenet_jax.errors import RunError

AS_THEY_CAME: dict[str, Any] = dataclasses.asdict(PLAIN)  # as metadata.json has it: short_side, max_side, quality, restart_markers


class Record(NamedTuple):
    """One stored example."""

    image: bytes  # encoded
    label: int
    name: str  # the file it came from, for messages and samples


class Records(Protocol):
    """len() and [i] -> Record, from any thread; can be pickled for another process."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Record: ...


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a data set, by random access. `read` may be called from many threads; pickled, it opens its files anew."""

    dataset: str  # NAME[/CONFIG], or the path of a plain folder
    version: str
    split: str
    classes: tuple[str, ...]  # readable
    fingerprint: str  # sha256 of what identifies the data: features, metadata, names, sizes and order of files, a few records
    encoding: dict[str, Any]  # what prepare did to the images, AS_THEY_CAME where it did nothing
    nbytes: int  # of the encoded images, about
    records: Records

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> Record:
        """The example of that id, 0 .. len - 1. Raises RunError for one that cannot be used: torn, or without image or label."""
        if not 0 <= index < len(self.records):
            raise IndexError(f"example {index} of {len(self)}")
        try:
            record = self.records[index]
        except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: array_record, of a torn file
            raise RunError(f"Example {index} of {self.dataset}, split {self.split}, cannot be read: {error}.") from error
        if not 0 <= record.label < len(self.classes):  # tfds stores -1 for "unknown", as in the test split of imagenet2012
            raise RunError(
                f"{record.name} (example {index} of {self.dataset}, split {self.split}) has the label {record.label}, which is "
                f"none of its {len(self.classes)} classes. Choose a split with labels."
            )
        return record
