"""Embed the pictures of a data set or a folder: `python -m imagenet_jax.embed`. What it writes, `search` and `serve` read."""

import argparse
import pathlib
import re
import sys
from typing import Any

import numpy as np
from tqdm import tqdm

from imagenet_jax import cli, loop, runtime, sharding
from imagenet_jax.data.batches import photos
from imagenet_jax.data.reading.records import Record
from imagenet_jax.data.reading.sources import Source, open_source
from imagenet_jax.data.storage import locate
from imagenet_jax.embedder import Embedder
from imagenet_jax.errors import UserError
from imagenet_jax.logs import write_json
from imagenet_jax.retrieval import store
from imagenet_jax.retrieval.store import Predictions, Rows

DESCRIPTION = """Write vectors and predictions of all pictures of a data set, or of a folder and all that is in it, to search among.

  python -m imagenet_jax.embed --weights=weights/lite0 --folder=~/photos --out=index/photos
  python -m imagenet_jax.embed --workdir=runs/r50 --dataset=imagenet2012 --split=train --out=index/train --part=3/8

The vectors are the model's pooled features, scaled to length 1. A run that was killed goes on at the first unfinished shard.
Several machines share the work by --part, into one folder.

Exit codes: 0 finished, 2 a mistake in the flags, 3 finished, but some pictures could not be read, which are named on stderr."""


def main(argv: list[str]) -> int:
    """Parse, embed what is not there yet, and say what is."""
    flags = _parser().parse_args(argv)
    if flags.batch_size < 1:
        raise UserError(f"--batch_size={flags.batch_size} must be at least 1.")
    if (flags.workdir is None) == (flags.weights is None):
        raise UserError("Give either --workdir=RUN or --weights=DIR.")
    part, parts = _part(flags.part)
    data, source = _data(flags)
    runtime.setup()
    mesh = sharding.make_mesh()
    embedder = Embedder(flags.workdir or flags.weights, mesh)
    manifest = _agreed(flags.out, {"format": store.FORMAT, **embedder.identity, "data": data, "shard": store.SHARD})

    mine = range(part - 1, store.shard_count(manifest), parts)
    batch_size = -(-min(flags.batch_size, len(source)) // mesh.size) * mesh.size
    with loop.out_of_memory_hint(batch_size, mesh.size, "--batch_size"):
        embed(embedder, source, flags.out, manifest, mine, batch_size)
    done = [s for s in range(store.shard_count(manifest)) if store.is_finished(flags.out, manifest, s)]
    name, width = manifest["model"]["name"], manifest["dimension"]
    print(f"{flags.out}: {len(done)} of {store.shard_count(manifest)} shards, {width:,} numbers an image by {name}")
    if broken := store.left_out(flags.out, manifest):
        print(f"{broken:,} pictures could not be read and are left out.", file=sys.stderr)
    return cli.PARTLY if broken else cli.FINISHED


def embed(embedder: Embedder, source: Source, out: pathlib.Path, manifest: dict[str, Any], shards: range, batch_size: int) -> None:
    """Write those of the shards that are not finished. Pictures that cannot be read are left out, and named on stderr."""
    todo = [s for s in shards if not store.is_finished(out, manifest, s)]
    ids = [i for shard in todo for i in store.shard_ids(manifest, shard)]
    records: dict[int, Record] = {}  # of images under way

    def read(i: int) -> bytes:
        try:
            record = source.records[i]
        except RuntimeError as error:  # array_record's, of a torn file
            raise ValueError(str(error)) from None
        records[i] = record._replace(image=b"")
        return record.image

    pending = _Pending()
    waiting = iter(todo)
    shard = next(waiting, None)
    with tqdm(total=len(ids), desc="embed", unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:
        for batch in embedder.stream(ids, read, batch_size):
            for place, (i, fault) in enumerate(zip(batch.ids, batch.faults, strict=True)):
                record = records.pop(i, None)
                if fault or record is None:
                    bar.write(f"{cli.printable(record.name if record else f'image {i}')}: {cli.printable(fault)}", file=sys.stderr)
                else:
                    pending.add(i, record, batch.vectors[place], *(part[place] for part in batch.predictions))
                if shard is not None and i == store.shard_ids(manifest, shard)[-1]:
                    store.write_shard(out, manifest, shard, pending.taken(manifest))
                    shard = next(waiting, None)
            bar.update(len(batch.ids))


class _Pending:
    """The rows of the shard that is being made."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def add(self, i: int, record: Record, vector: np.ndarray, classes: np.ndarray, probabilities: np.ndarray) -> None:
        name = record.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        self._rows.append((i, name, record.label, vector, classes, probabilities))

    def taken(self, manifest: dict[str, Any]) -> Rows:
        """All rows, which leave."""
        ids, names, labels, *arrays = zip(*self._rows, strict=True) if self._rows else [()] * 6
        self._rows = []
        widths, kinds = (manifest["dimension"], manifest["top"], manifest["top"]), (np.float32, np.int32, np.float32)
        vectors, classes, probabilities = (
            np.array(rows, kind).reshape(-1, width) for rows, kind, width in zip(arrays, kinds, widths, strict=True)
        )
        return Rows(vectors, np.array(ids, np.int64), list(names), np.array(labels, np.int32), Predictions(classes, probabilities))


def open_data(data: dict[str, Any]) -> Source:
    """The data that index.json names. Raises UserError where it is not there, or is not what it was."""
    if data["version"] == photos.VERSION:
        source = photos.open_photos(pathlib.Path(data["dataset"]))
    else:
        source = open_source(locate.place(data["data_dir"]), f"{data['dataset']}:{data['version']}", data["split"])
    if source.fingerprint != data["fingerprint"]:
        raise UserError(f"{data['dataset']} has changed since it was embedded.")
    return source


def _data(flags: argparse.Namespace) -> tuple[dict[str, Any], Source]:
    if (flags.folder is None) == (flags.dataset is None):
        raise UserError("Give either --dataset=NAME or --folder=DIR.")
    data_dir = locate.data_dir(flags.data_dir)
    source = photos.open_photos(flags.folder) if flags.folder else open_source(data_dir, flags.dataset, flags.split)
    data = {
        **{key: getattr(source, key) for key in ("dataset", "version", "split", "fingerprint")},
        "data_dir": str(data_dir.absolute()),
        "images": len(source),
        "classes": list(source.classes),
    }
    return data, source


def _agreed(out: pathlib.Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The folder's index.json, written where there is none. Raises UserError where it is of something else."""
    try:
        if not (out / "index.json").exists():
            write_json(out / "index.json", manifest)
    except OSError as error:
        raise UserError(f"--out={out} cannot be written: {error.strerror or error}.") from None
    there = store.read_manifest(out)
    different = [key for key in ("data", "classes", "dimension", "top") if there[key] != manifest[key]]
    different += [key for key in store.SAME if store.comparable(there)[key] != store.comparable(manifest)[key]]
    if "data" in different and all(there["data"][k] == manifest["data"][k] for k in manifest["data"] if k != "data_dir"):
        different.remove("data")  # the same data, found elsewhere on this machine
    if different:
        raise UserError(f"{out} holds an index of something else: {', '.join(different)} differ. Use another --out, or remove it.")
    return there


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    part, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise UserError(f"--part={text} must be like 3/8: the third of eight.")
    return part, parts


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("embed", DESCRIPTION)
    parser.add_argument("--weights", type=cli.path, metavar="DIR", help="of `convert`")
    parser.add_argument("--workdir", type=cli.path, metavar="RUN", help="of a run: its newest checkpoint")
    parser.add_argument("--folder", type=cli.path, metavar="DIR", help="pictures, with all that is in it")
    parser.add_argument("--dataset", metavar="NAME", help="NAME[/CONFIG][:VERSION], or the path of a folder SPLIT/CLASS/IMAGE")
    parser.add_argument("--split", default="train", help="of --dataset; default: train")
    parser.add_argument("--data_dir", help="of prepared data sets; default: TFDS_DATA_DIR, else ~/tensorflow_datasets")
    parser.add_argument("--out", type=cli.path, required=True, metavar="DIR", help="where the index goes")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="the I-th of N machines; default: all of it")
    parser.add_argument("--batch_size", type=int, default=64, help="images at a time; default 64")
    return parser


if __name__ == "__main__":
    cli.run(main)
