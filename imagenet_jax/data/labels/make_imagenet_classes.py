"""Make `imagenet_classes.tsv` from WordNet 3.0. Run once by a developer; the result is in the repository.

    python -m imagenet_jax.data.labels.make_imagenet_classes /usr/share/wordnet/data.noun

The file is part of WordNet 3.0 (Debian package wordnet-base). A wnid is the letter n and a synset's offset in it.
"""

import collections
import pathlib
import sys

import tensorflow_datasets as tfds

TABLE = pathlib.Path(__file__).parent / "imagenet_classes.tsv"
LICENSE = TABLE.parent / "LICENSE.wordnet"
LICENSE_LINES = 29  # data.noun opens with the licence, each line numbered in four columns


def main(argv: list[str]) -> None:
    """Write the table and the licence from the path of data.noun."""
    lines = pathlib.Path(argv[0]).read_text(encoding="utf-8").splitlines()
    licence = [line[4:].rstrip() for line in lines[:LICENSE_LINES]]
    LICENSE.write_text("\n".join(licence) + "\n", encoding="utf-8")
    nouns = {line[:8]: line for line in lines[LICENSE_LINES:]}
    wnids = tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()
    names = class_names(wnids, nouns)
    rows = (f"{wnid}\t{name}\n" for wnid, name in zip(wnids, names, strict=True))
    TABLE.write_text("".join(rows), encoding="utf-8")
    print(f"{len(names)} names written to {TABLE}")


def class_names(wnids: list[str], nouns: dict[str, str]) -> list[str]:
    """A name for each wnid, all distinct: the synset's first lemma; where classes share it, with the parent's in brackets.

    `nouns` maps a synset's offset (eight digits) to its line in data.noun.
    """
    plain = [_first_lemma(nouns[wnid[1:]]) for wnid in wnids]
    uses = collections.Counter(name.lower() for name in plain)  # "Cardigan" the dog, "cardigan" the jacket
    names = [
        name if uses[name.lower()] == 1 else f"{name} ({_first_lemma(nouns[_parent(nouns[wnid[1:]])])})"
        for wnid, name in zip(wnids, plain, strict=True)
    ]
    if len({name.lower() for name in names}) != len(names):
        raise ValueError("Two classes still share a name: brackets with the parent do not tell them apart.")
    return names


def _first_lemma(line: str) -> str:
    return line.split()[4].replace("_", " ")


def _parent(line: str) -> str:
    """The offset behind the line's first hypernym pointer ('@')."""
    fields = line.split(" | ")[0].split()
    return fields[fields.index("@") + 1]


if __name__ == "__main__":
    main(sys.argv[1:])
