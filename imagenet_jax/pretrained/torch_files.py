"""Tensors out of what torch.save writes, `.pth`, `.pt` or `.bin`, without torch and without executing any of it.

Two formats. Since torch 1.6 a zip: `ARCHIVE/data.pkl`, whose persistent ids name storages, and `ARCHIVE/data/KEY`, their bytes,
never compressed. Before, and of torchvision's and timm's older files: five pickles one after the other (magic number, protocol,
system, object, list of storage keys), then each storage as its number of elements, int64, and its bytes.
Both are written by torch/serialization.py, of which these are the facts.
"""

import functools
import io
import math
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from imagenet_jax.pretrained import pickles

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MAX_PICKLE = 1 << 24  # bytes; that of ResNet-152 has 150,000

_DTYPES = {
    "Double": np.dtype("<f8"),
    "Float": np.dtype("<f4"),
    "Half": np.dtype("<f2"),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
    "Long": np.dtype("<i8"),
    "Int": np.dtype("<i4"),
    "Short": np.dtype("<i2"),
    "Char": np.dtype("i1"),
    "Byte": np.dtype("u1"),
    "Bool": np.dtype("?"),
}


class Storage(NamedTuple):
    """Memory that tensors are views of."""

    key: str
    dtype: np.dtype
    count: int  # elements


class Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """Stands for torch._utils._rebuild_tensor_v2; what follows are requires_grad, hooks and metadata."""
    numbers = (offset, *shape, *strides)
    plain = len(shape) == len(strides) <= 8 and all(type(n) is int and n >= 0 for n in numbers)
    if not isinstance(storage, Storage) or not plain:
        raise ValueError("a tensor without storage, or with a shape or strides that are none")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # More elements than the storage has would be a tensor spread by stride 0: never of weights, and of any size.
    if math.prod(shape) > storage.count or (0 not in shape and last >= storage.count):
        raise ValueError(f"a tensor of shape {shape} does not lie within its storage of {storage.count:,} elements")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> Tensor:
    """Stands for torch._utils._rebuild_parameter."""
    if not isinstance(tensor, Tensor):
        raise ValueError("a parameter that is no tensor")
    return tensor


def _ordered_dict(*pairs: Any) -> dict[Any, Any]:
    """Stands for collections.OrderedDict, which pickles begin empty."""
    if pairs not in ((), ([],)):
        raise ValueError("refused: an OrderedDict with arguments")
    return {}


_KNOWN: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **{f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()},
    **{f"torch.{dtype.name}": dtype for dtype in _DTYPES.values()},
}


def read(path: pathlib.Path, entry: str = "") -> dict[str, np.ndarray]:
    """Name -> tensor of the state dict that the file is, or holds as its one entry with tensors, or as `entry`.

    Raises ValueError for a file that holds anything but tensors and plain containers, naming it, or that is damaged.
    """
    try:
        return (_read_zip if zipfile.is_zipfile(path) else _read_legacy)(path, entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:  # what zipfile raises
        raise ValueError(f"damaged zip: {error}") from error


def _read_zip(path: pathlib.Path, entry: str) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        members = {i.filename: i for i in archive.infolist()}
        pickled = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickled) != 1:
            raise ValueError("a zip, but not of torch.save: it has no ARCHIVE/data.pkl")
        folder = pickled[0].removesuffix("data.pkl")

        def member(name: str, size: int | None = None) -> bytes:
            info = members.get(folder + name)
            if info is None:
                raise ValueError(f"its part {name!r} is missing")
            if info.compress_type != zipfile.ZIP_STORED or (
                info.file_size > MAX_PICKLE if size is None else info.file_size != size
            ):
                raise ValueError(f"its part {name!r} is compressed, or its {info.file_size:,} bytes are not what it should have")
            return archive.read(info)

        if folder + "byteorder" in members and member("byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        content = pickles.load(io.BytesIO(member("data.pkl")), _KNOWN, _Storages(path))
        return _arrays(
            _state_dict(content, entry),
            lambda s: np.frombuffer(member(f"data/{s.key}", s.count * s.dtype.itemsize), s.dtype),
        )


def _read_legacy(path: pathlib.Path, entry: str) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        head = io.BytesIO(file.read(MAX_PICKLE))
    if head.getbuffer()[:1] != b"\x80":  # with which every pickle since protocol 2 begins
        raise ValueError("it is neither .safetensors nor of torch.save")
    storages = _Storages(path)
    magic, protocol, system = (pickles.load(head, {}, storages) for _ in range(3))
    if magic != MAGIC or protocol != PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("not of torch.save: it does not begin with its magic number, protocol 1001 and little-endian order")
    content = pickles.load(head, _KNOWN, storages)
    keys = pickles.load(head, {}, storages)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages.found):
        raise ValueError("its storages are not those that its tensors use")
    data, place, arrays = np.memmap(path, np.uint8, "r"), head.tell(), {}
    for key in keys:
        storage = storages.found[key]
        start, place = place + 8, place + 8 + storage.count * storage.dtype.itemsize
        if place > len(data) or int(data[start - 8 : start].view("<i8")[0]) != storage.count:
            raise ValueError(f"it ends within storage {key!r}, or that storage has another size than its tensors say")
        arrays[key] = data[start:place].view(storage.dtype)
    return _arrays(_state_dict(content, entry), lambda s: arrays[s.key])


class _Storages:
    """Makes storages of persistent ids ("storage", type, key, location, count[, view]), and remembers them."""

    def __init__(self, path: pathlib.Path):
        self.found: dict[str, Storage] = {}
        self._left = path.stat().st_size

    def __call__(self, identity: Any) -> Storage:
        match identity:
            case ("storage", np.dtype() as dtype, str(key), str(), int(count), *view) if view in ([], [None]) and count >= 0:
                storage = Storage(key, dtype, count)
            case _:
                raise ValueError("refused: a persistent id that is no storage")
        if key not in self.found:
            self.found[key] = storage
            self._left -= count * dtype.itemsize
        if self.found[key] != storage:
            raise ValueError(f"storage {key!r} is of two sizes or types")
        if self._left < 0:
            raise ValueError("its tensors claim more bytes than the file has")
        return storage


def _state_dict(content: Any, entry: str) -> dict[str, Tensor]:
    """The dict of tensors that `content` is, or has as its `entry`."""

    def has_tensors(value: Any) -> bool:
        return isinstance(value, dict) and any(isinstance(v, Tensor) for v in value.values())

    if entry or not has_tensors(content):
        entries = sorted(k for k, v in content.items() if has_tensors(v)) if isinstance(content, dict) else []
        if (not entry and len(entries) != 1) or (entry and entry not in entries):
            raise ValueError(f"its entries with tensors are {', '.join(map(repr, entries)) or 'none'}: choose with --entry=NAME")
        content = content[entry or entries[0]]
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"its {name!r} is a {type(value).__name__}, no tensor")
    return content


def _arrays(tensors: dict[str, Tensor], read_storage: Callable[[Storage], np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors as read-only arrays; each storage is read once."""
    read_once = functools.cache(read_storage)
    found = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        memory = read_once(storage)[offset:]
        steps = tuple(stride * storage.dtype.itemsize for stride in strides)
        found[name] = np.lib.stride_tricks.as_strided(memory, shape, steps, writeable=False)
    return found
