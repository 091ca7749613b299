"""Other labels for ImageNet's 50,000 validation images: which classes are right for each, by file name.

ReaL (Beyer et al. 2020, arXiv 2006.07159) and the multi-label annotations of Shankar et al. (2020) in Vasudevan et al.'s revision
(2022, arXiv 2205.04596). Both are one JSON file, which lies in DATA_DIR/downloads/manual as it was downloaded, so no image is
prepared, or looked at, twice. The file comes from outside: its shape is checked.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from imagenet_jax.data.labels import classes
from imagenet_jax.data.storage import remote
from imagenet_jax.data.storage.locate import Place
from imagenet_jax.data.storage.remote import Url
from imagenet_jax.errors import UserError

LIMIT = 256 << 20  # bytes: ReaL's has 0.8 MB

Right = dict[str, frozenset[int]]  # file name -> classes that are right; images that do not count are not in it


class Labels(NamedTuple):
    """One file of labels."""

    file: str
    url: str
    read: Callable[[Any], Right]
    by_class: bool  # the mean over classes of their images' mean


def _real(content: Any) -> Right:
    """A list of lists of classes, in the order of the file names' numbers; images with an empty list have no right answer."""
    return {f"ILSVRC2012_val_{i:08d}.JPEG": frozenset(map(_label, right)) for i, right in enumerate(content, 1) if right}


def _multilabel(content: Any) -> Right:
    """Of the annotated validation images, correct and unclear labels; those called problematic do not count."""
    index = {wnid: i for i, wnid in enumerate(classes.wnids())}
    annotated, out = content["initial_annots"], set(content["problematic_images"])
    return {
        name: frozenset(index[wnid] for kind in ("correct", "unclear") for wnid in labels.get(kind, []))
        for name, labels in annotated.items()
        if re.fullmatch(r"ILSVRC2012_val_\d{8}\.JPEG", name) and name not in out
    }


def _label(label: Any) -> int:
    if type(label) is not int or not 0 <= label < 1000:
        raise ValueError(f"{label!r} is no class")
    return label


REAL = "https://raw.githubusercontent.com/google-research/reassessed-imagenet/master/real.json"
MULTILABEL = "https://storage.googleapis.com/brain-car-datasets/imagenet-mistakes/human_accuracy_v3.0.0.json"
LABELS = {
    "ReaL": Labels("real.json", REAL, _real, by_class=False),
    "multilabel": Labels("human_accuracy_v3.0.0.json", MULTILABEL, _multilabel, by_class=True),
}


def find(data_dir: Place, name: str) -> Right | None:
    """The labels called `name` in `LABELS`, None where their file is not there. Raises UserError where it is no such file."""
    place = data_dir / "downloads" / "manual" / LABELS[name].file
    try:
        if isinstance(place, Url):
            stat = remote.files(place.parent).get(place.name) if place.parent.is_dir() else None
            size = stat.size if stat else None
        else:
            size = place.stat().st_size if place.is_file() else None
        if size is None:
            return None
        if size > LIMIT:
            raise ValueError(f"it has {size:,} bytes, more than {LIMIT:,}")
        content = json.loads(remote.read(str(place)) if isinstance(place, Url) else place.read_bytes())
        return LABELS[name].read(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(f"{place} is not what is published at {LABELS[name].url}: {error!r}. Download it again.") from None
