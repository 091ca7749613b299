"""An index in the forms that vector databases ingest: each row with its vector, name, label, class and what that is a kind of.

parquet: a file, for Milvus' bulk import, LanceDB, and whatever reads Arrow. jsonl: a line an object, for Qdrant (id, vector,
payload). vespa: a line an operation, as `vespa feed` takes them.
"""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imagenet_jax.errors import UserError
from imagenet_jax.retrieval import words
from imagenet_jax.retrieval.store import Index

ROWS = 1 << 10  # at a time


def export(index: Index, form: str, path: pathlib.Path) -> int:
    """Write all rows; returns how many. Raises UserError where the file cannot be written."""
    draft = path.with_name(path.name + ".tmp")
    try:
        FORMS[form](index, draft)
        draft.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        draft.unlink(missing_ok=True)
    return len(index)


def _rows(index: Index) -> Iterator[list[dict[str, Any]]]:
    """Lists of {id, vector, name, label, class, probability, categories}."""
    kinds = words.kinds_of(index.classes)
    for first, block in index.blocks(ROWS):
        described = index.describe(range(first, first + len(block)))
        yield [
            {
                "id": item["row"],
                "vector": vector,
                "name": item["name"],
                "label": item["label"] or "",
                "class": item["top"][0]["name"],
                "probability": item["top"][0]["probability"],
                "categories": kinds[item["top"][0]["index"]],
            }
            for item, vector in zip(described, block, strict=True)
        ]


def _parquet(index: Index, path: pathlib.Path) -> None:
    schema = pa.schema(
        {
            "id": pa.int64(),
            "vector": pa.list_(pa.float32(), index.dimension),
            **{name: pa.string() for name in ("name", "label", "class")},
            "probability": pa.float32(),
            "categories": pa.list_(pa.string()),
        }
    )
    with pq.ParquetWriter(path, schema) as writer:
        for rows in _rows(index):
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _lines(index: Index, path: pathlib.Path, of: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for rows in _rows(index):
            file.writelines(json.dumps(of(row | {"vector": row["vector"].tolist()})) + "\n" for row in rows)


def _qdrant(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row.pop("id"), "vector": row.pop("vector"), "payload": row}


def _vespa(row: dict[str, Any]) -> dict[str, Any]:
    return {"put": f"id:imagenet_jax:picture::{row['id']}", "fields": row | {"vector": {"values": row["vector"]}}}


FORMS: dict[str, Callable[[Index, pathlib.Path], None]] = {
    "parquet": _parquet,
    "jsonl": lambda index, path: _lines(index, path, _qdrant),
    "vespa": lambda index, path: _lines(index, path, _vespa),
}
