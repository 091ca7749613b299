"""The test sets that papers report beside ImageNet's validation split, read as their authors publish them.

Folders are wnids in ImageNet-A, -R, -Sketch and -C, and class numbers 0 .. 999 in ImageNet-V2, which sorted as text would be other
classes. A and R hold 200 classes each, and these are all that their data sets here have: whoever counts takes the logits of those.
"""

import pathlib

from imagenet_jax.data.labels import classes
from imagenet_jax.data.labels.papers import CORRUPTIONS, EXTRA, SETS, SEVERITIES
from imagenet_jax.data.preparing.shards import DataSet
from imagenet_jax.data.storage.archives import Listing, Progress, class_folders, members
from imagenet_jax.data.storage.entries import Entries
from imagenet_jax.errors import UserError


def data_set(name: str, names: list[str]) -> DataSet:
    """One of `SETS` with these classes; the images are stored as they came."""
    base, _, variant = name.partition("/")
    published = SETS[name]
    about = f"{name}, written by imagenet_jax from what its authors publish."
    return DataSet(base, published.version, about, names, homepage=published.homepage, variant=variant or None)


def listing(name: str, path: pathlib.Path, progress: Progress) -> Listing:
    """The images of one of `SETS` but ImageNet-C: a tree of class folders, or a tar of it; classes are wnids in their usual order.

    Raises UserError where a folder is none of ImageNet's classes.
    """
    found = class_folders(path, progress)
    if not name.startswith("imagenet_v2/"):
        return found._replace(classes=_known(found.classes, path))
    wnids = classes.wnids()
    if strange := [c for c in found.classes if not (c.isascii() and c.isdecimal() and int(c) < len(wnids) and str(int(c)) == c)]:
        raise UserError(f"{path} has the class folder {strange[0]}. ImageNet-V2 has folders 0 to 999: is it the right archive?")
    entries = Entries()
    for e in found.entries:
        entries.add(e.name, wnids[int(e.label)], e.path, e.offset, e.size)
    return Listing(entries, found.left_out, wnids)


def corrupted(path: pathlib.Path, progress: Progress) -> dict[str, Listing]:
    """Name in `SETS` -> images of that corruption and severity, of what a folder or tar of CORRUPTION/SEVERITY/WNID/IMAGE holds.

    The extra corruptions are passed over. Raises UserError where nothing is left, or something else is in it.
    """
    parts = _tree(path, progress) if path.is_dir() else _tar(path, progress)
    if not parts:
        raise UserError(f"{path} holds none of the corruptions that count: {', '.join(CORRUPTIONS)}.")
    for part in parts.values():
        _known(part.classes, path)
    return {name: part._replace(classes=classes.wnids()) for name, part in sorted(parts.items())}


def _tree(path: pathlib.Path, progress: Progress) -> dict[str, Listing]:
    places = {f"imagenet_c/{c}_{s}": path / c / str(s) for c in CORRUPTIONS for s in SEVERITIES}
    return {name: class_folders(place, progress) for name, place in places.items() if place.is_dir()}


def _tar(path: pathlib.Path, progress: Progress) -> dict[str, Listing]:
    if not path.is_file():
        raise UserError(f"{path} does not exist. Name the folder of ImageNet-C's corruptions, or one of its tars.")
    parts: dict[str, Listing] = {}
    for image in members(path, progress):
        if image.folder:
            continue
        corruption, severity, wnid, file = ("", "", "", *image.parts)[-4:]
        name = f"imagenet_c/{corruption}_{severity}"
        if corruption in EXTRA:
            continue
        if name not in SETS:
            raise UserError(f"{path} holds {image.name!r}, which is no CORRUPTION/SEVERITY/WNID/IMAGE of ImageNet-C.")
        part = parts.setdefault(name, Listing(Entries(), [], []))
        if wnid not in part.classes[-1:]:
            part.classes.append(wnid)
        if image.refused:
            part.left_out.append((f"{wnid}/{file}", image.refused))
        else:
            part.entries.add(f"{wnid}/{file}", wnid, str(path), image.offset, image.size)
    return parts


def _known(names: list[str], path: pathlib.Path) -> list[str]:
    """`names`, if they are wnids of ILSVRC 2012."""
    if strange := sorted(set(names) - set(classes.wnids())):
        raise UserError(f"{path} has the class folder {strange[0]}, which is none of ImageNet's 1,000 wnids (such as n01440764).")
    return names
