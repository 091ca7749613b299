"""A folder of weights that says what it is: `weights.safetensors`, in our own paths and layouts, and `weights.json` beside it.

The JSON names the model and its settings, the classes, the preprocessing that the weights expect, where they came from, and what
accuracy was published for them. Whoever applies the weights reads these and assumes nothing.
"""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax import logs, models, tree
from imagenet_jax.data.pixels import decode
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.pretrained import names, safetensors, torch_files

FORMAT = 1


class Preprocessing(NamedTuple):
    """From a photograph to what the model takes; `mean` and `std` a channel, of images in 0..1."""

    image_size: int
    crop_ratio: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    antialias: bool = True


class Weights(NamedTuple):
    """What a folder holds. `source` says where the weights came from, `published_top1` in percent, None where unknown."""

    model: models.Classifier
    variables: dict[str, Any]
    name: str  # of the model
    settings: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    source: dict[str, Any]
    published_top1: float | None = None


def read_tensors(path: pathlib.Path, entry: str = "") -> dict[str, np.ndarray]:
    """Name -> tensor of a `.safetensors` file or of one of torch.save, told apart by their contents.

    `entry` chooses among several state dicts of a checkpoint. Raises UserError for a file that is neither, damaged or refused.
    """
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        tensors = safetensors.read(path) if is_safetensors else torch_files.read(path, entry)
    except OSError as error:
        raise UserError(f"--weights={path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise UserError(f"--weights={path}: {error}.") from error
    # torch.nn.DataParallel puts this before every name.
    return {n.removeprefix("module."): t for n, t in tensors.items()} if all(n.startswith("module.") for n in tensors) else tensors


def sha256(path: pathlib.Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(folder: pathlib.Path, weights: Weights) -> None:
    """Write the folder. Raises UserError where it cannot be written."""
    parameters = tree.count(weights.variables["params"])
    content = {
        "format": FORMAT,
        "model": {"name": weights.name, "settings": weights.settings, "parameters": parameters},
        "preprocessing": weights.preprocessing._asdict(),
        "published_top1": weights.published_top1,
        "source": weights.source,
        "classes": list(weights.classes),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {path: np.asarray(leaf) for path, leaf in tree.paths(weights.variables)}
        safetensors.write(folder / "weights.safetensors", arrays)
        logs.write_json(folder / "weights.json", content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}.") from None


def load(folder: pathlib.Path, *, dtype: str = "float32") -> Weights:
    """Read a folder that `save` wrote; `dtype` is that of the activations.

    Raises UserError where it is none, or where its tensors are not those of the model that it names.
    """
    content = _content(folder / "weights.json")
    name, settings = content["model"]["name"], content["model"]["settings"]
    model = models.create(name, num_classes=len(content["classes"]), dtype=dtype, **settings)
    like = names.variables_like(model)
    tensors = read_tensors(folder / "weights.safetensors")
    wanted = {path: leaf.shape for path, leaf in tree.paths(like)}
    differing = sorted(p for p in {*wanted, *tensors} if p not in tensors or tensors[p].shape != wanted.get(p))
    if differing:
        listed = ", ".join(differing[:5])
        raise UserError(f"{folder} does not hold the weights of {name}: {len(differing)} tensors differ, such as {listed}.")
    return Weights(
        model=model,
        variables=tree.map_with_path(lambda path, leaf: np.asarray(tensors[path], leaf.dtype), like),
        name=name,
        settings=settings,
        classes=tuple(content["classes"]),
        preprocessing=_preprocessing(content["preprocessing"], folder),
        source=content["source"],
        published_top1=content["published_top1"],
    )


def check(preprocessing: Preprocessing) -> Preprocessing:
    """The same. Raises UserError for a value that no image can be prepared with."""
    p = preprocessing
    if p.interpolation not in decode.INTERPOLATIONS:
        raise unknown("interpolation", p.interpolation, decode.INTERPOLATIONS)
    if not 0 < p.crop_ratio <= 1:
        raise UserError(f"crop_ratio={p.crop_ratio} is not in (0, 1].")
    if not 1 <= p.image_size <= 4096:
        raise UserError(f"image_size={p.image_size} is not in 1 .. 4096.")
    if len(p.mean) != 3 or len(p.std) != 3 or min(p.std) <= 0:
        raise UserError(f"mean={p.mean} and std={p.std}: three numbers each are wanted, and std above 0.")
    return p


def _content(path: pathlib.Path) -> Mapping[str, Any]:
    content = logs.needed_json(path, f"{path.parent} holds no weights. Make such a folder: python -m imagenet_jax.convert")
    match content:
        case {
            "format": 1,
            "model": {"name": str(), "settings": dict()},
            "classes": [_, *_] as classes,
            "preprocessing": dict(),
            "source": dict(),
            "published_top1": int() | float() | None,
        } if all(isinstance(name, str) for name in classes):
            return content
    raise UserError(f"{path} is not of format {FORMAT}, which `python -m imagenet_jax.convert` writes.")


def _preprocessing(given: dict[str, Any], folder: pathlib.Path) -> Preprocessing:
    try:
        made = Preprocessing(**given)
        numbers = [float(n) for n in (*made.mean, *made.std, made.crop_ratio)]
        made = made._replace(mean=tuple(numbers[:3]), std=tuple(numbers[3:6]), image_size=int(made.image_size))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{folder / 'weights.json'}: its preprocessing is not as it should be: {error}.") from None
    return check(made)
