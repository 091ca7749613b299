"""Read and write `.safetensors`: eight bytes of length, a JSON header, and the tensors' bytes one after the other.

The format is that of https://github.com/huggingface/safetensors (docs "Format"): little-endian, row-major, no holes. A file is
hostile: the header's length, names, shapes and offsets are held against the size of the file before any byte is used.
"""

import json
import math
import os
import pathlib
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
MAX_HEADER = 100_000_000  # bytes; the reference implementation's limit


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Name -> tensor, read-only views of the mapped file. Raises ValueError for what is no such file, saying why."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > min(MAX_HEADER, size - 8):
            raise ValueError(f"its header claims {length:,} bytes, the file has {size:,}")
        try:
            header = json.loads(file.read(length), object_pairs_hook=_unique)
        except RecursionError:
            raise ValueError("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if size > 8 + length else np.empty(0, np.uint8)
    entries = sorted((_entry(name, entry) for name, entry in header.items()), key=lambda e: e[3])
    end = 0
    for name, dtype, shape, start, stop in entries:
        if start != end or stop - start != math.prod(shape) * dtype.itemsize or stop > len(data):
            raise ValueError(f"tensor {name!r}, {dtype} {shape}, does not fit its bytes {start} to {stop} of {len(data):,}")
        end = stop
    if end != len(data):
        raise ValueError(f"{len(data) - end:,} bytes after its last tensor belong to none")
    return {name: data[start:stop].view(dtype).reshape(shape) for name, dtype, shape, start, stop in entries}


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write the tensors, whole or not at all. Raises ValueError for a dtype that the format lacks."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in tensors.items()}
    for name, array in arrays.items():
        if array.dtype not in names:
            raise ValueError(f"tensor {name!r} has dtype {array.dtype}, which .safetensors cannot hold")
    # As the reference writes it: wide types first, so that every tensor lies aligned.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses a file that does not say so
    end = 0
    for name in order:
        array = arrays[name]
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    draft = path.with_name(path.name + ".tmp")
    with draft.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(arrays[name].reshape(-1).view(np.uint8).data)
    os.replace(draft, path)


def _entry(name: str, entry: Any) -> tuple[str, np.dtype, tuple[int, ...], int, int]:
    """(name, dtype, shape, start, stop) of one entry of the header, each of the type that it should have."""
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [start, stop], **others} if not others and all(
            type(n) is int and n >= 0 for n in (*shape, start, stop)
        ):
            if kind not in DTYPES:
                raise ValueError(f"tensor {name!r} has dtype {kind!r}; known: {', '.join(DTYPES)}")
            return name, DTYPES[kind], tuple(shape), start, stop
    raise ValueError(f"its header's entry for {name!r} is not {{dtype, shape, data_offsets}}")


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"its header names {key!r} twice")
        found[key] = value
    return found
