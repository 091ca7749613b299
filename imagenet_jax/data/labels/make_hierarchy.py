"""Make `imagenet_hierarchy.tsv` from WordNet 3.0. Run once by a developer; the result is in the repository.

    python -m imagenet_jax.data.labels.make_hierarchy /usr/share/wordnet/data.noun

The file is part of WordNet 3.0 (Debian package wordnet-base), whose licence lies beside the table.
"""

import pathlib
import sys

from imagenet_jax.data.labels import classes
from imagenet_jax.data.labels.hierarchy import TABLE, lines_of
from imagenet_jax.data.labels.wordnet import read_nouns, with_ancestors


def main(argv: list[str]) -> None:
    """Write the table of ILSVRC 2012's classes and everything above them from the path of data.noun."""
    synsets = with_ancestors(read_nouns(pathlib.Path(argv[0])), classes.wnids())
    path = pathlib.Path(__file__).parent / TABLE
    path.write_text("".join(lines_of(synsets)), encoding="utf-8")
    print(f"{len(synsets):,} synsets written to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
