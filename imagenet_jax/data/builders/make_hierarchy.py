"""Make `data/imagenet_hierarchy.tsv` from WordNet 3.0. Run once by a developer; the result is in the repository.

    python -m imagenet_jax.data.builders.make_hierarchy /usr/share/wordnet/data.noun

The file is part of WordNet 3.0 (Debian package wordnet-base), whose licence lies beside the table.
"""

import pathlib
import sys

from imagenet_jax.data import classes
from imagenet_jax.data.hierarchy import TABLE, Synset, lines_of

HYPERNYMS = ("@", "@i")  # "is a kind of" and, for proper names, "is an instance of"


def main(argv: list[str]) -> None:
    """Write the table of ILSVRC 2012's classes and everything above them from the path of data.noun."""
    synsets = with_ancestors(read_nouns(pathlib.Path(argv[0])), classes.wnids())
    path = pathlib.Path(__file__).parent.parent / TABLE
    path.write_text("".join(lines_of(synsets)), encoding="utf-8")
    print(f"{len(synsets):,} synsets written to {path}")


def read_nouns(path: pathlib.Path) -> dict[str, Synset]:
    """wnid (the letter n and the offset) -> synset, of every noun; the format is described in wndb(5WN)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(_parse(line) for line in lines if not line.startswith("  "))  # the licence opens the file, indented


def with_ancestors(nouns: dict[str, Synset], wnids: list[str]) -> dict[str, Synset]:
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


if __name__ == "__main__":
    main(sys.argv[1:])
