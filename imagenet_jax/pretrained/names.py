"""Between our variables and other people's tensors: names, layouts, and the proof that nothing was left over on either side.

Our modules are named as torchvision's or timm's, with `a.0.b` written `a_0/b`, so one rule turns our paths into their names, and
`tables.py` lists what a family calls otherwise. The way back is the same table: a tensor's name is looked up among those that our
leaves have. Layouts: convolutions HWIO here and OIHW there, dense kernels (in, out) here and (out, in) there.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax import tree
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.models import Classifier
from imagenet_jax.pretrained.tables import ABSENT, NAMINGS, Row

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}  # others have the same name
_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}  # axes of kernels
_TO_FLAX = {2: (1, 0), 4: (2, 3, 1, 0)}
_COUNTERS = "num_batches_tracked"  # torch counts the batches that a BatchNorm saw; nothing here depends on it
SHOWN = 40  # names of a list in a message


class Theirs(NamedTuple):
    """What a leaf of ours is in a naming: one tensor, or several that are one of ours when joined along their first axis."""

    names: tuple[str, ...]
    shape: tuple[int, ...]  # of the one, or of all joined
    is_kernel: bool


def variables_like(model: Classifier) -> dict[str, Any]:
    """The shapes and dtypes of the model's variables at its native size, RGB; nothing is computed."""
    side = model.native_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), model.dtype)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)


def from_torch(model: Classifier, tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], str]:
    """The model's variables out of named tensors, and the naming they were in: the one that fits.

    Every leaf is filled once, in its own dtype, and every tensor used once, except BatchNorm's counters. Raises UserError where no
    naming fits, listing for the nearest one what is missing, left over, or of another shape.
    """
    given = {name: tensor for name, tensor in tensors.items() if name.split(".")[-1] != _COUNTERS}
    like = variables_like(model)
    fits = [(_misfits(theirs(model, like, naming), given), naming) for naming in namings(model)]
    misfits, naming = min(fits, key=lambda fit: len(fit[0]))
    if misfits:
        shown = [*misfits[:SHOWN], *([f"... and {len(misfits) - SHOWN:,} more"] if len(misfits) > SHOWN else [])]
        tried = ", ".join(name for _, name in fits)
        raise UserError(
            f"These weights are not those of this model. Namings tried: {tried}. "
            f"Nearest is {naming}, with {len(misfits):,} differences:\n" + "\n".join(f"  {line}" for line in shown)
        )
    wanted = theirs(model, like, naming)
    return tree.map_with_path(lambda path, leaf: _to_flax(wanted[path], given, leaf), like), naming


def to_torch(model: Classifier, variables: Mapping[str, Any], naming: str) -> dict[str, np.ndarray]:
    """The variables as named tensors of that naming; `from_torch` gives back the same bits."""
    if naming not in namings(model):
        raise unknown("naming of this model's family", naming, namings(model))
    found: dict[str, np.ndarray] = {}
    wanted = theirs(model, variables, naming)
    for path, leaf in tree.paths(variables):
        names, shape, is_kernel = wanted[path]
        array = np.asarray(leaf)
        array = array.transpose(_TO_TORCH[array.ndim]) if is_kernel else array
        array = array.reshape(shape)
        parts = np.split(array, len(names)) if len(names) > 1 else [array]
        found |= {name: np.asarray(part, order="C") for name, part in zip(names, parts, strict=True)}
    return found


def namings(model: Classifier) -> list[str]:
    """The namings that are known for the model; the first is the one that its family was built after, if it is there."""
    family = type(model)
    return [n for n in NAMINGS.get(family, {"torchvision": ()}) if (family, n) not in ABSENT or not ABSENT[family, n](model)]


def libraries(model: Classifier) -> list[str]:
    """Whose published weights of the model are read: names of libraries, each once."""
    plain = (re.sub(r"_(0\.11|conv)$", "", naming) for naming in namings(model))
    return list(dict.fromkeys(plain)) if type(model) in NAMINGS else []


def theirs(model: Classifier, like: Any, naming: str) -> dict[str, Theirs]:
    """Path of each of our leaves -> what it is in `naming`; `like` are the variables or their shapes."""
    table: Iterable[Row] | Callable[[Any], Iterable[Row]] = NAMINGS.get(type(model), {"torchvision": ()})[naming]
    rows = [Row(*row) for row in (table(model) if callable(table) else table)]
    return {path: _theirs(path, leaf.shape, rows) for path, leaf in tree.paths(like)}


def _theirs(path: str, shape: tuple[int, ...], rows: list[Row]) -> Theirs:
    *modules, leaf = path.split("/")[1:]  # without the collection
    name = re.sub(r"_(\d+)(?=[._]|$)", r".\1", ".".join(modules))
    name = ".".join(filter(None, [name, _LEAVES.get(leaf, leaf)]))
    is_kernel = leaf == "kernel"
    if is_kernel:
        shape = tuple(shape[axis] for axis in _TO_TORCH[len(shape)])
    for row in rows:
        name, count = re.subn(row.pattern, row.replacement, name)
        if count and row.shape:
            shape = np.empty(shape, bool).reshape(row.shape).shape
    before, *alternatives = re.split(r"[{}]", name)
    if not alternatives:
        return Theirs((name,), shape, is_kernel)
    inside, after = alternatives
    return Theirs(tuple(before + part + after for part in inside.split(",")), shape, is_kernel)


def _misfits(wanted: dict[str, Theirs], given: Mapping[str, np.ndarray]) -> list[str]:
    """What is missing, left over or of another shape, a line each."""
    lines, used = [], set()
    for names, shape, _ in wanted.values():
        part = (shape[0] // len(names), *shape[1:]) if len(names) > 1 else shape
        for name in names:
            used.add(name)
            if name not in given:
                lines.append(f"missing    {name} {part}")
            elif given[name].shape != part:
                lines.append(f"shape      {name} is {given[name].shape}, wanted {part}")
    return lines + [f"left over  {name} {tensor.shape}" for name, tensor in given.items() if name not in used]


def _to_flax(wanted: Theirs, given: Mapping[str, np.ndarray], leaf: Any) -> np.ndarray:
    parts = [given[name] for name in wanted.names]
    array = np.concatenate(parts) if len(parts) > 1 else parts[0]
    if wanted.is_kernel:
        array = array.reshape(wanted.shape).transpose(_TO_FLAX[len(wanted.shape)])
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"Tensor {wanted.names[0]!r} has dtype {array.dtype}, which is no weight's.")
    return np.asarray(array.reshape(leaf.shape), leaf.dtype, order="C")
