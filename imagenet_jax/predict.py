"""Classify photographs: `python -m imagenet_jax.predict --weights=DIR photo.jpg folder/ ...`."""

import argparse
import contextlib
import csv
import pathlib
import sys
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from imagenet_jax import cli, infer, loop, runtime, sharding, step
from imagenet_jax.data.batches import photos
from imagenet_jax.data.labels import classes, hierarchy
from imagenet_jax.errors import UserError
from imagenet_jax.logs import write_json
from imagenet_jax.report import sheet

DESCRIPTION = """Name what photographs show: files, and folders with all that is in them. Preprocessing is what the weights say.
ImageNet's classes come with what WordNet says they are kinds of.

Exit codes: 0 finished, 2 a mistake in the flags, 3 finished, but some files could not be read, which are named on stderr."""

BLOCKS = 10  # images up to which all `top` are shown; of more, the first


def predict(loaded: infer.LoadedModel, paths: Sequence[pathlib.Path], mesh: Mesh, batch_size: int) -> Generator[Any]:
    """(photos.Photos, probabilities (images, classes)) for each batch, while the next ones are decoded and computed."""
    function = step.make_predict_step(loaded.model, mean=loaded.mean, std=loaded.std)
    with contextlib.closing(photos.batches(paths, loaded.pixels, batch_size=batch_size)) as host:
        pairs = ((batch, batch.images) for batch in host)
        for batch, probabilities in infer.outputs(function, loaded.weights[loaded.best], mesh, pairs):
            yield batch, probabilities[: len(batch.paths)]


def main(argv: list[str]) -> int:
    """Parse, predict, print, and write what was asked for."""
    flags = _parser().parse_args(argv)
    if flags.top < 1 or flags.batch_size < 1:
        raise UserError(f"--top={flags.top} and --batch_size={flags.batch_size} must be at least 1.")
    paths = photos.find(flags.photos)
    runtime.setup()
    mesh = sharding.make_mesh()
    loaded = infer.load(flags.weights, mesh)
    batch_size = -(-min(flags.batch_size, len(paths)) // mesh.size) * mesh.size

    results, pictures, broken = [], [], 0
    wnids = classes.wnids_of(loaded.classes)
    bar = tqdm(total=len(paths), desc="predict", unit="image", leave=False, disable=not sys.stderr.isatty())
    with bar, loop.out_of_memory_hint(batch_size, mesh.size, "--batch_size"):
        for batch, probabilities in predict(loaded, paths, mesh, batch_size):
            for path, picture, fault, row in zip(batch.paths, batch.images, batch.faults, probabilities, strict=False):
                if fault:
                    broken += 1
                    bar.write(f"{cli.printable(path)}: {cli.printable(fault)}", file=sys.stderr)
                    continue
                results.append({"path": str(path), "top": _top(row, loaded.classes, wnids, flags.top)})
                bar.write(_shown(results[-1], flags.top if len(paths) <= BLOCKS else 1), file=sys.stdout)
                if flags.sheet and len(pictures) < sheet.MOST:
                    pictures.append(picture.copy())
            bar.update(len(batch.paths))
    _write(flags, results, pictures)
    if broken:
        print(f"{broken:,} of {len(paths):,} files could not be read.", file=sys.stderr)
    return cli.PARTLY if broken else cli.FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("predict", DESCRIPTION)
    parser.add_argument("photos", type=cli.path, nargs="+", metavar="PHOTO|FOLDER")
    parser.add_argument("--weights", type=cli.path, required=True, metavar="DIR|RUN", help="of `convert`, or of a run")
    parser.add_argument("--top", type=int, default=5, help="classes for each image; default 5")
    parser.add_argument("--batch_size", type=int, default=64, help="images at a time; default 64")
    parser.add_argument(
        "--json", type=cli.new_file, metavar="FILE", help="write a list of {path, top: [{index, wnid, name, probability}]}"
    )
    parser.add_argument("--csv", type=cli.new_file, metavar="FILE", help="write a line for each image and class")
    parser.add_argument(
        "--sheet", type=cli.new_file, metavar="FILE.png", help=f"write a contact sheet of the first {sheet.MOST} images"
    )
    return parser


def _top(row: np.ndarray, names: Sequence[str], wnids: Sequence[str] | None, count: int) -> list[dict[str, Any]]:
    best = np.argsort(-row, kind="stable")[:count]
    return [{"index": int(i), "wnid": wnids[i] if wnids else None, "name": names[i], "probability": float(row[i])} for i in best]


def _shown(result: dict[str, Any], count: int) -> str:
    lines = [f"{t['probability']:7.2%}  {cli.printable(t['name'])}" for t in result["top"][:count]]
    path = cli.printable(result["path"])
    if count == 1:
        return f"{lines[0]}  {path}"
    kinds = [_kinds(t["wnid"]) for t in result["top"][:count]]
    return "\n".join([path, *(f"{line}  ({kind})" if kind else line for line, kind in zip(lines, kinds, strict=True))])


def _kinds(wnid: str | None) -> str:
    """What the class is a kind of, from WordNet's most general noun down: 'entity > ... > bird > aquatic bird > wading bird'."""
    tree = hierarchy.imagenet1k()
    return " > ".join(tree.words(above) for above in tree.path(wnid)[:-1]) if wnid else ""


def _write(flags: argparse.Namespace, results: list[dict[str, Any]], pictures: list[np.ndarray]) -> None:
    """The files that were asked for. Raises UserError where one cannot be written."""
    try:
        if flags.json:
            write_json(flags.json, results)
        if flags.csv:
            # A file name that is not valid UTF-8 arrives as lone surrogates.
            with flags.csv.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["path", "rank", "index", "wnid", "name", "probability", "wordnet_path"])
                for result in results:
                    top = enumerate(result["top"], start=1)
                    rows.writerows([result["path"], rank, *t.values(), _kinds(t["wnid"])] for rank, t in top)
        if flags.sheet and pictures:
            captions = [(f"{r['top'][0]['probability']:.0%} {r['top'][0]['name']}", pathlib.Path(r["path"]).name) for r in results]
            sheet.write_sheet(flags.sheet, pictures, captions[: len(pictures)])
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror or error}.") from None


if __name__ == "__main__":
    cli.run(main)
