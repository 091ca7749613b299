"""The hierarchy above any list of wnids: of ILSVRC 2012 from our table, else from the WordNet 3.0 that is installed here.

A wnid is the letter n and a place in WordNet 3.0's data.noun, so no other version will do. Debian has it (wordnet-base), and so
has nltk's corpus "wordnet".
"""

import functools
import os
import pathlib
import re
from collections.abc import Sequence

from imagenet_jax.data.labels import classes
from imagenet_jax.data.labels.hierarchy import Hierarchy, Synset, imagenet1k
from imagenet_jax.errors import UserError

NOUNS = "data.noun"
PLACES = (
    "/usr/share/wordnet",
    "/usr/local/WordNet-3.0/dict",
    "/usr/share/nltk_data/corpora/wordnet",
    "~/nltk_data/corpora/wordnet",
)
INSTALL = "Install WordNet 3.0 (Debian: apt install wordnet-base), or name the folder of its data.noun in WNSEARCHDIR."
HYPERNYMS = ("@", "@i")  # "is a kind of" and, for proper names, "is an instance of"


def wnids_of(names: Sequence[str]) -> list[str] | None:
    """The wnids of a data set's classes: those of ILSVRC 2012's readable names, or the names where all are wnids; else None."""
    known = classes.wnids_of(names)
    return list(names) if known is None and all(re.fullmatch(r"n\d{8}", name) for name in names) else known


def hierarchy_of(wnids: Sequence[str], folder: pathlib.Path | None = None) -> Hierarchy:
    """`imagenet1k()` where it holds all `wnids`, else these and everything above them, from the WordNet in `folder` or installed.

    So heights are the same for all parts of ILSVRC 2012. Raises UserError where no WordNet is found, or one without these wnids.
    """
    if all(wnid in imagenet1k().synsets for wnid in wnids):
        return imagenet1k()
    found = folder or find()
    try:
        return Hierarchy(with_ancestors(read_nouns(found / NOUNS), wnids))
    except KeyError as error:
        raise UserError(
            f"The WordNet in {found} has no {error.args[0]}: it is another version than 3.0, or not all of these {len(wnids):,} "
            f"classes are ImageNet's. {INSTALL}"
        ) from None


def find() -> pathlib.Path:
    """The folder of WordNet's files: what WNSEARCHDIR or WNHOME name (as WordNet's own programs have it), else a usual place."""
    asked = [f"{os.environ[name]}{below}" for name, below in (("WNSEARCHDIR", ""), ("WNHOME", "/dict")) if os.environ.get(name)]
    places = [pathlib.Path(place).expanduser() for place in asked[:1] or PLACES]
    for place in places:
        if (place / NOUNS).is_file():
            return place
    raise UserError(f"These classes need WordNet, and no {NOUNS} is in {', '.join(map(str, places))}. {INSTALL}")


@functools.cache
def read_nouns(path: pathlib.Path) -> dict[str, Synset]:
    """wnid -> synset, of every noun; the format is described in wndb(5WN). Raises UserError for a file of another."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        return dict(_parse(line) for line in lines if not line.startswith("  "))  # the licence opens the file, indented
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is no data.noun of WordNet: {error}. {INSTALL}") from None


def with_ancestors(nouns: dict[str, Synset], wnids: Sequence[str]) -> dict[str, Synset]:
    """The synsets of `wnids` and all their ancestors, sorted by wnid. Raises KeyError for a wnid that is none."""
    found: dict[str, Synset] = {}
    waiting = list(wnids)
    while waiting:
        wnid = waiting.pop()
        if wnid not in found:
            found[wnid] = nouns[wnid]
            waiting += nouns[wnid].parents
    return dict(sorted(found.items()))


def _parse(line: str) -> tuple[str, Synset]:
    """Fields: offset, file, type, number of words (hexadecimal), word and id each, number of pointers, four fields each."""
    fields = line.split(" | ")[0].split()
    words_end = 4 + 2 * int(fields[3], 16)
    words = tuple(word.replace("_", " ") for word in fields[4:words_end:2])
    pointers = [fields[i : i + 2] for i in range(words_end + 1, words_end + 1 + 4 * int(fields[words_end]), 4)]
    return f"n{fields[0]}", Synset(tuple(f"n{offset}" for symbol, offset in pointers if symbol in HYPERNYMS), words)
