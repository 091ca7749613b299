"""What can be done with whole indexes: `python -m imagenet_jax.index build | knn-eval | dedup | export`."""

import argparse
import time

from imagenet_jax import cli
from imagenet_jax.errors import UserError
from imagenet_jax.logs import write_json
from imagenet_jax.retrieval import approximate, duplicates, export, knn
from imagenet_jax.retrieval.store import Index

DESCRIPTION = """Work on what `embed` wrote. Search is exact, and needs nothing of this.

  python -m imagenet_jax.index build index/train                       # approximate neighbours, for millions (extra [search])
  python -m imagenet_jax.index knn-eval index/train index/validation   # top-1 by nearest neighbours
  python -m imagenet_jax.index dedup index/train                       # pictures that are nearly the same
  python -m imagenet_jax.index dedup index/train index/validation      # of the second, those that the first has too
  python -m imagenet_jax.index export index/train --form=parquet --out=train.parquet"""

KS = (10, 20, 100, 200)
SHOWN = 20  # groups or pairs that are printed; a JSON file has all


def main(argv: list[str]) -> int:
    """Parse and run one of the commands."""
    flags = _parser().parse_args(argv)
    flags.command(flags)
    return cli.FINISHED


def _build(flags: argparse.Namespace) -> None:
    if flags.probes < 0:
        raise UserError(f"--probes={flags.probes} must be at least 1, or 0 for the default.")
    index = Index(flags.index)
    start = time.perf_counter()
    probes = approximate.build(index, flags.probes)
    seconds, made = time.perf_counter() - start, approximate.Approximate(index)
    share, queries = approximate.recall(index, made)
    print(
        f"{flags.index}: {len(index):,} vectors of {index.dimension:,} numbers, {made.size / 1e6:,.1f} MB, built in {seconds:.1f} s"
    )
    looked = f"{probes} of {approximate.lists_for(len(index))} lists"
    print(f"recall@10 against the exact search: {share:.3f} ({queries} queries, {looked})")


def _knn_eval(flags: argparse.Namespace) -> None:
    if min(flags.k) < 1:
        raise UserError(f"-k {min(flags.k)} must be at least 1.")
    train, counted = Index(flags.index), Index(flags.other)
    results = knn.evaluate(train, counted, flags.k)
    print(f"{train.manifest['model']['name']}: {len(train):,} pictures vote on {len(counted):,}, T = {knn.TEMPERATURE}")
    for k, r in results.items():
        print(f"k={k:<4d} top-1 {r['top1']:7.2%}  top-5 {r['top5']:7.2%}  {r['correct']:,} of {r['images']:,}")
    _write(flags, {str(k): r for k, r in results.items()})


def _dedup(flags: argparse.Namespace) -> None:
    if not 0 < flags.threshold <= 1:
        raise UserError(f"--threshold={flags.threshold} must be in (0, 1].")
    index, alike = Index(flags.index), f"(cosine {flags.threshold} and more)"
    if flags.other is None:
        groups = [index.describe(rows) for rows in duplicates.groups(index, flags.threshold)]
        print(f"{len(groups):,} groups of near duplicates, {sum(map(len, groups)):,} of {len(index):,} pictures {alike}")
        for group in groups[:SHOWN]:
            print("  " + "  ".join(cli.printable(item["name"]) for item in group[:SHOWN]))
        return _write(flags, [[{key: item[key] for key in ("row", "name", "label")} for item in group] for group in groups])
    other = Index(flags.other)
    index.refuse_unlike(other.manifest, str(flags.other))
    pairs = duplicates.across(index, other, flags.threshold)
    print(f"{len(pairs):,} of {len(other):,} pictures of {flags.other} are near duplicates of one of {flags.index} {alike}")
    theirs, ours = other.describe([row for row, _, _ in pairs]), index.describe([row for _, row, _ in pairs])
    named = [
        {"row": row, "name": there["name"], "of": of, "of_name": here["name"], "similarity": score}
        for (row, of, score), there, here in zip(pairs, theirs, ours, strict=True)
    ]
    for pair in named[:SHOWN]:
        print(f"  {pair['similarity']:.3f}  {cli.printable(pair['name'])}  {cli.printable(pair['of_name'])}")
    return _write(flags, named)


def _export(flags: argparse.Namespace) -> None:
    count = export.export(Index(flags.index), flags.form, flags.out)
    print(f"Written: {flags.out}, {count:,} rows")


def _write(flags: argparse.Namespace, content: object) -> None:
    if flags.json:
        try:
            write_json(flags.json, content)
        except OSError as error:
            raise UserError(f"{flags.json} cannot be written: {error.strerror or error}.") from None


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("index", DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="make the approximate index, and count its recall", allow_abbrev=False)
    build.add_argument("--probes", type=int, default=0, help="lists that a query looks into; default: a sixteenth of all")
    knn_eval = commands.add_parser("knn-eval", help="top-1 and top-5 by nearest neighbours", allow_abbrev=False)
    dedup = commands.add_parser("dedup", help="pictures that are nearly the same", allow_abbrev=False)
    exported = commands.add_parser("export", help="for vector databases", allow_abbrev=False)
    for command, function in ((build, _build), (knn_eval, _knn_eval), (dedup, _dedup), (exported, _export)):
        command.add_argument("index", type=cli.path, metavar="INDEX", help="of `embed`")
        command.set_defaults(command=function)
    knn_eval.add_argument("other", type=cli.path, metavar="COUNTED", help="whose pictures are classified")
    knn_eval.add_argument("-k", type=int, nargs="+", default=KS, help=f"neighbours; default {' '.join(map(str, KS))}")
    dedup.add_argument("other", type=cli.path, metavar="OTHER", nargs="?", help="look for its pictures in the first")
    dedup.add_argument("--threshold", type=float, default=0.9, help="the least cosine; default 0.9")
    for command in (knn_eval, dedup):
        command.add_argument("--json", type=cli.new_file, metavar="FILE", help="write all of it")
    exported.add_argument("--form", choices=export.FORMS, default="parquet", help="default: parquet; jsonl is Qdrant's")
    exported.add_argument("--out", type=cli.new_file, required=True, metavar="FILE")
    return parser


if __name__ == "__main__":
    cli.run(main)
