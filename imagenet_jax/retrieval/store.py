"""The files of an index: vectors as `.npy`, what is known of each image as Parquet, both in shards, and index.json.

index.json says which model, weights, preprocessing and data the vectors are of; a query must be of the same. A shard is a range of
the data's images (those that did not decode are left out), named by its place among all, so that several machines can write into
one folder and a killed run goes on: a shard is finished where both of its files are there. Rows are numbered through all shards.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imagenet_jax import logs
from imagenet_jax.errors import UserError

FORMAT = 1
SHARD = 1 << 14  # images; 84 MB of vectors of 1,280 numbers
BLOCK = 1 << 13  # rows that a search reads at a time
MAX_DIMENSION = 1 << 16
SAME = ("model", "weights", "preprocessing")  # what a query must have in common with an index


class Predictions(NamedTuple):
    """The most probable classes of each image: int32 and float32 (n, top), in falling order of probability."""

    classes: np.ndarray
    probabilities: np.ndarray


class Rows(NamedTuple):
    """What a shard holds, row by row. `ids` int64: of the data's images; `labels` int32: -1 where unknown."""

    vectors: np.ndarray  # float32 (n, d), of length 1
    ids: np.ndarray
    names: list[str]
    labels: np.ndarray
    predictions: Predictions


class Index:
    """An index on disk. What is read is checked against index.json and the file's own size before anything is allocated."""

    def __init__(self, folder: pathlib.Path):
        """Raises UserError where it is none, or not whole."""
        self.folder, self.manifest = folder, read_manifest(folder)
        self.dimension, self.classes = int(self.manifest["dimension"]), tuple(self.manifest["classes"])
        missing = [s for s in range(shard_count(self.manifest)) if not is_finished(folder, self.manifest, s)]
        if missing:
            raise UserError(
                f"{folder} is not finished: {len(missing)} of {shard_count(self.manifest)} shards are missing, the first is number "
                f"{missing[0]}. Run `python -m imagenet_jax.embed` again, with the same flags: it makes those alone."
            )
        self.counts = [self._rows_of(shard) for shard in range(shard_count(self.manifest))]
        self.starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def blocks(self, rows: int = BLOCK) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first row, float32 (at most `rows`, d)) over all rows, in order; one at a time is in memory."""
        for shard, start in enumerate(self.starts[:-1]):
            vectors = self._mapped(shard)
            with open(self._vectors_file(shard), "rb") as file:
                file.seek(vectors.offset)
                for first in range(0, len(vectors), rows):
                    count = min(rows, len(vectors) - first)
                    # Read, not mapped: pages of a map would count as ours until the system wants them back.
                    yield int(start) + first, np.fromfile(file, np.float32, count * self.dimension).reshape(count, -1)

    def vectors(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The vectors of those rows, float32 (n, d)."""
        rows = np.asarray(rows, np.int64)
        out = np.empty((len(rows), self.dimension), np.float32)
        for shard, chosen in self._by_shard(rows):
            out[chosen] = self._mapped(shard)[rows[chosen] - self.starts[shard]]
        return out

    def predictions(self) -> Iterator[tuple[int, Predictions]]:
        """(number of the first row, what was predicted) for each shard."""
        for shard, start in enumerate(self.starts[:-1]):
            yield int(start), self._predictions(self._table(shard, ["classes", "probabilities"]))

    def labels(self) -> np.ndarray:
        """Of all rows, int32; -1 where unknown."""
        return np.concatenate([self._table(s, ["label"])["label"].to_numpy() for s in range(len(self.counts))]).astype(np.int32)

    def describe(self, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Of each row: "row", "id", "name", "label" (None where unknown) and "top", a list of {index, name, probability}."""
        rows = np.asarray(rows, np.int64)
        out: list[dict[str, Any]] = [{} for _ in rows]
        known = self.manifest["data"]["classes"]  # of the data, which need not be the model's
        for shard, chosen in self._by_shard(rows):
            table = self._table(shard).take(rows[chosen] - self.starts[shard])
            columns = (table[name].to_pylist() for name in ("id", "name", "label"))
            for place, index, name, label, *top in zip(chosen, *columns, *self._predictions(table), strict=True):
                out[place] = {
                    "row": int(rows[place]),
                    "id": index,
                    "name": name,
                    "label": known[label] if 0 <= label < len(known) else None,
                    "top": describe_top(top[0], top[1], self.classes),
                }
        return out

    def refuse_unlike(self, other: dict[str, Any], what: str) -> None:
        """Raise UserError where `what`, whose manifest is `other`, was not made by the same model, weights and preprocessing."""
        for key in SAME:  # another model has other weights, too: the first says enough
            ours, theirs = comparable(self.manifest)[key], comparable(other)[key]
            if ours != theirs:
                raise UserError(
                    f"{what} cannot be compared with {self.folder}, they differ in {key}: {_unlike(ours, theirs)}. "
                    "Embed both with the same weights."
                )

    def _by_shard(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()} .. {rows.max()} of {len(self)}")
        shard_of = np.searchsorted(self.starts, rows, side="right") - 1
        for shard in np.unique(shard_of):
            yield int(shard), np.flatnonzero(shard_of == shard)

    def _vectors_file(self, shard: int) -> pathlib.Path:
        return shard_files(self.folder, self.manifest, shard)[0]

    def _mapped(self, shard: int) -> np.memmap:
        path = self._vectors_file(shard)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged: {error}. Remove it and embed again.") from None
        if not isinstance(array, np.memmap) or array.dtype != np.float32 or array.shape[1:] != (self.dimension,):
            raise UserError(f"{path} is damaged: {array.dtype} {array.shape}, not float32 (n, {self.dimension}). Embed again.")
        return array

    def _rows_of(self, shard: int) -> int:
        path, count = shard_files(self.folder, self.manifest, shard)[1], len(self._mapped(shard))
        try:
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} is damaged: {error}. Remove it and embed again.") from None
        if metadata.num_rows != count or not metadata.schema.to_arrow_schema().equals(_schema(int(self.manifest["top"]))):
            raise UserError(f"{path} does not belong to the vectors beside it. Remove both and embed again.")
        return count

    def _table(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(shard_files(self.folder, self.manifest, shard)[1], columns=columns)

    def _predictions(self, table: pa.Table) -> Predictions:
        top = int(self.manifest["top"])
        classes, probabilities = (
            table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, top)
            for name in ("classes", "probabilities")
        )
        if classes.size and not 0 <= classes.min() <= classes.max() < len(self.classes):
            raise UserError(f"{self.folder} is damaged: it has predictions of classes that it does not name. Embed again.")
        return Predictions(classes, probabilities)


def _unlike(ours: Any, theirs: Any) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
        return "; ".join(f"{name} {ours.get(name)} here, {theirs.get(name)} there" for name in names)
    return f"{str(ours)[:12]} here, {str(theirs)[:12]} there"


def describe_top(classes: np.ndarray, probabilities: np.ndarray, names: Sequence[str], count: int = 5) -> list[dict[str, Any]]:
    """The first `count` of one image's predictions, for people: {index, name, probability}."""
    pairs = zip(classes[:count], probabilities[:count], strict=True)
    return [{"index": int(c), "name": names[c], "probability": float(p)} for c, p in pairs]


def write_shard(folder: pathlib.Path, manifest: dict[str, Any], shard: int, rows: Rows) -> None:
    """Write both files of a shard, each there in full or not at all; the Parquet file, whose being there says finished, last."""
    flat = [pa.array(np.ascontiguousarray(part).reshape(-1)) for part in rows.predictions]
    lists = [pa.FixedSizeListArray.from_arrays(values, int(manifest["top"])) for values in flat]
    table = pa.table(
        [pa.array(rows.ids), pa.array(rows.names), pa.array(rows.labels), *lists], schema=_schema(int(manifest["top"]))
    )
    for path, write in zip(
        shard_files(folder, manifest, shard),
        (lambda file: np.save(file, rows.vectors, allow_pickle=False), lambda file: pq.write_table(table, file)),
        strict=True,
    ):
        draft = path.with_name(f".{path.name}.{os.getpid()}")  # two writers of one shard never write into one file
        try:
            with open(draft, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _schema(top: int) -> pa.Schema:
    return pa.schema(
        {
            "id": pa.int64(),
            "name": pa.string(),
            "label": pa.int32(),
            "classes": pa.list_(pa.int32(), top),
            "probabilities": pa.list_(pa.float32(), top),
        }
    )


def shard_count(manifest: dict[str, Any]) -> int:
    """How many shards the data makes."""
    return -(-int(manifest["data"]["images"]) // int(manifest["shard"]))


def shard_ids(manifest: dict[str, Any], shard: int) -> range:
    """The ids of the images of a shard."""
    size, images = int(manifest["shard"]), int(manifest["data"]["images"])
    return range(shard * size, min(images, (shard + 1) * size))


def shard_files(folder: pathlib.Path, manifest: dict[str, Any], shard: int) -> tuple[pathlib.Path, pathlib.Path]:
    """(vectors, what is known of them): `vectors-00003-of-00079.npy` and `images-00003-of-00079.parquet`."""
    place = f"{shard:05d}-of-{shard_count(manifest):05d}"
    return folder / f"vectors-{place}.npy", folder / f"images-{place}.parquet"


def is_finished(folder: pathlib.Path, manifest: dict[str, Any], shard: int) -> bool:
    """Whether both files of the shard are there."""
    return all(path.is_file() for path in shard_files(folder, manifest, shard))


def left_out(folder: pathlib.Path, manifest: dict[str, Any]) -> int:
    """How many images of the finished shards are not in them."""
    done = [s for s in range(shard_count(manifest)) if is_finished(folder, manifest, s)]
    return sum(len(shard_ids(manifest, s)) - pq.read_metadata(shard_files(folder, manifest, s)[1]).num_rows for s in done)


def comparable(manifest: dict[str, Any]) -> dict[str, Any]:
    """What vectors must have in common to be compared: all of SAME but the place of the weights and the decoder's version."""
    return {
        "model": manifest["model"],
        "weights": manifest["weights"]["sha256"],
        "preprocessing": {k: v for k, v in manifest["preprocessing"].items() if k != "decoder"},
    }


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """index.json. Raises UserError where there is none or it is not as `embed` writes it."""
    path = folder / "index.json"
    content = logs.needed_json(path, f"{folder} is no index. Make one: python -m imagenet_jax.embed")
    match content:
        case {
            "format": 1,
            "model": {"name": str()},
            "weights": {"sha256": str(), "folder": str()},
            "preprocessing": {"image_size": int()},
            "data": {
                "dataset": str(),
                "version": str(),
                "split": str(),
                "fingerprint": str(),
                "images": int() as images,
                "classes": [*labels],
            },
            "classes": [_, *_] as classes,
            "dimension": int() as dimension,
            "shard": int() as shard,
            "top": int() as top,
        } if all(isinstance(name, str) for name in (*classes, *labels)):
            if images > 0 and shard > 0 and 0 < top <= len(classes) and 0 < dimension <= MAX_DIMENSION:
                return content
    raise UserError(f"{path} is not of format {FORMAT}, which `python -m imagenet_jax.embed` writes.")
