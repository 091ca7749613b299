"""Find pictures by a picture, by a word, or by both: `python -m imagenet_jax.search INDEX --word=dog`."""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagenet_jax import cli, embedder, runtime
from imagenet_jax.data.batches import photos
from imagenet_jax.errors import UserError
from imagenet_jax.logs import write_json
from imagenet_jax.retrieval import approximate, exact, words
from imagenet_jax.retrieval.store import Index

DESCRIPTION = """Find pictures in what `embed` wrote.

  python -m imagenet_jax.search index/photos --image=photo.jpg            # like this one
  python -m imagenet_jax.search index/photos --word=crane --sense=bird    # of this kind, most probable first
  python -m imagenet_jax.search index/photos --word=dog --item=17         # of this kind, most like number 17

A word is looked up among the names of WordNet that ImageNet's classes are kinds of; its senses are printed. Together with a picture
it keeps what is more probably of that kind than not."""


class Result(NamedTuple):
    """Rows of an index, best first, with "similarity" (the cosine) or "probability" as `measure`."""

    rows: np.ndarray  # int64 (n,)
    scores: np.ndarray  # float32 (n,)
    measure: str


def search(
    index: Index,
    k: int,
    *,
    vector: np.ndarray | None = None,
    classes: Sequence[int] | None = None,
    neighbours: approximate.Approximate | None = None,
) -> Result:
    """The `k` pictures most like `vector` (d,), or most probably of one of `classes`; with both, the most alike of those that are
    more probably of these classes than not. `neighbours` answers, where it is given, instead of the exact search."""
    if vector is None:
        assert classes is not None
        found = words.most_probable(index.predictions(), classes, len(index.classes), k)
        return _result(found, "probability")
    keep = None
    if classes is not None:
        keep = np.concatenate([words.mass(p, classes, len(index.classes)) > 0.5 for _, p in index.predictions()])
    elif neighbours:
        return _result(neighbours.nearest(vector[None], k), "similarity")
    return _result(exact.nearest(index.blocks(), vector[None], k, keep), "similarity")


def _result(found: exact.Found, measure: str) -> Result:
    there = found.rows[0] >= 0
    return Result(found.rows[0][there], found.scores[0][there], measure)


def main(argv: list[str]) -> int:
    """Parse, search, print, and write what was asked for."""
    flags = _parser().parse_args(argv)
    if flags.k < 1:
        raise UserError(f"-k {flags.k} must be at least 1.")
    if flags.image and flags.item is not None:
        raise UserError("Give --image=FILE or --item=N, not both.")
    if not flags.image and flags.item is None and not flags.word:
        raise UserError("Give --image=FILE, --item=N or --word=WORD.")
    index = Index(flags.index)
    senses, classes = _meant(flags.word, flags.sense, index.classes) if flags.word else ([], None)
    result = search(
        index, flags.k, vector=_vector(flags, index), classes=classes,
        neighbours=approximate.Approximate(index) if flags.approximate else None,
    )  # fmt: skip

    for sense in senses:
        noun = "class  " if len(sense.classes) == 1 else "classes"
        print(f"{sense.key}  {len(sense.classes):4d} {noun}  {' > '.join(map(cli.printable, sense.path))}")
    described = [
        {result.measure: float(score), **item} for score, item in zip(result.scores, index.describe(result.rows), strict=True)
    ]
    paths = words.paths_of(index.classes)
    for item in described:
        best = item["top"][0]
        above = " > ".join(paths[best["index"]][-4:-1])
        shown = f"{cli.printable(best['name'])} {best['probability']:.0%}" + (f"  ({cli.printable(above)})" if above else "")
        print(f"{item[result.measure]:6.3f}  #{item['row']:<7d} {cli.printable(item['name'])}  {shown}")
    if not described:
        print("Nothing found.")
    if flags.json:
        try:
            write_json(flags.json, {"senses": [s._asdict() for s in senses], "measure": result.measure, "results": described})
        except OSError as error:
            raise UserError(f"{flags.json} cannot be written: {error.strerror or error}.") from None
    return cli.FINISHED


def _meant(word: str, wanted: str | None, names: Sequence[str]) -> tuple[list[words.Sense], tuple[int, ...]]:
    """The senses of the word, or the one that is wanted, by its wnid or a word on its path; and the classes of all of them."""
    senses = words.senses(word, names)
    if wanted:
        chosen = [s for s in senses if wanted == s.key or wanted in s.path]
        if not chosen:
            listed = "; ".join(f"{s.key} ({' > '.join(s.path)})" for s in senses)
            raise UserError(f"--sense={wanted} is none of the senses of {word!r}: {listed}.")
        senses = chosen
    return senses, tuple(sorted({label for sense in senses for label in sense.classes}))


def _vector(flags: argparse.Namespace, index: Index) -> np.ndarray | None:
    if flags.item is not None:
        if not 0 <= flags.item < len(index):
            raise UserError(f"--item={flags.item}: {flags.index} has 0 .. {len(index) - 1}.")
        return index.vectors([flags.item])[0]
    if not flags.image:
        return None
    runtime.setup()
    try:
        data = photos.read_file(flags.image)
    except (OSError, ValueError) as error:
        raise UserError(f"{flags.image} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return embedder.for_queries(index, flags.weights).one(data).vector


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("search", DESCRIPTION)
    parser.add_argument("index", type=cli.path, metavar="INDEX", help="of `embed`")
    parser.add_argument("--image", type=cli.path, metavar="FILE", help="a picture")
    parser.add_argument("--item", type=int, metavar="N", help="a picture of the index, by its number")
    parser.add_argument("--word", help="such as dog, crane, musical instrument")
    parser.add_argument("--sense", help="of --word: a wnid, or a word that stands above it")
    parser.add_argument("-k", type=int, default=20, help="results; default 20")
    parser.add_argument("--approximate", action="store_true", help="with what `index build` made, instead of looking at all")
    parser.add_argument("--weights", type=cli.path, metavar="DIR|RUN", help="where the index's weights are now, if moved")
    parser.add_argument("--json", type=cli.new_file, metavar="FILE", help="write senses and results")
    return parser


if __name__ == "__main__":
    cli.run(main)
