"""A run that begins from other weights: where they are, what they make of the config, and the variables it starts with.

The weights say their model and their preprocessing; a config that says otherwise wins, and `record.summary` prints it. What they
said is frozen in config.json under "init", with the sha256 of their content, so a resume does not need them.
"""

import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from imagenet_jax import build, checkpoint, infer, record, tree
from imagenet_jax import config as configs
from imagenet_jax.errors import RunError, UserError
from imagenet_jax.pretrained import names
from imagenet_jax.state import TrainState


class Origin(NamedTuple):
    """The weights that a run begins from. `said` is config.json's "init", but for the head of a run that has not begun."""

    said: dict[str, Any]
    variables: dict[str, Any]  # on the host; {} for a run that has begun
    classes: tuple[str, ...]


def find(config: configs.Config, workdir: pathlib.Path, mesh: Mesh) -> Origin | None:
    """The weights of `init_from`: those that `workdir` began from, where it has, else those that are there now. None without.

    Raises UserError where they are neither a folder of weights nor a run.
    """
    if not config.init_from:
        return None
    folder = pathlib.Path(config.init_from)
    if (workdir / "config.json").exists() and checkpoint.latest_step(workdir / "checkpoints") is not None:
        frozen = record.read(workdir)
        if frozen["config"].get("init_from") == config.init_from:  # else record.freeze refuses the run, and says why
            _notice(folder, frozen["init"]["sha256"], mesh)
            return Origin(frozen["init"], {}, ())
    return _read(folder, mesh)


def _read(folder: pathlib.Path, mesh: Mesh) -> Origin:
    if not folder.is_dir():
        raise UserError(f"init_from={folder} is no folder. Make one of weights: python -m imagenet_jax.convert, or name a run.")
    loaded = infer.load(folder, mesh)
    variables = jax.device_get(loaded.weights[loaded.best])
    pixels, model = loaded.pixels, loaded.record["config"]["model"]
    said = {
        "sha256": content_hash(variables),
        "step": loaded.step,
        "weights": loaded.best,
        "source": loaded.record.get("source"),
        "model": {"name": model["name"], "settings": model["settings"]},
        "preprocessing": {
            "image_size": pixels.image_size,
            "crop_ratio": pixels.crop_ratio,
            "interpolation": pixels.engine.interpolation,
            "antialias": pixels.antialias,
            "mean": list(loaded.mean),
            "std": list(loaded.std),
        },
    }
    return Origin(said, variables, loaded.classes)


def _notice(folder: pathlib.Path, sha256: str, mesh: Mesh) -> None:
    """Print how `folder` differs from the weights that the run began from, which a resume does not read."""
    try:
        now = _read(folder, mesh).said["sha256"]
    except (UserError, RunError) as error:
        print(f"The weights that the run began from are not needed any more, and cannot be read: {error}")
        return
    if now != sha256:
        print(f"Changed since the run began: {folder} holds other weights, sha256 {sha256[:12]} -> {now[:12]}. The run goes on.")


def content_hash(variables: Any) -> str:
    """sha256 over every leaf's path, dtype, shape and bytes: the same weights have the same, in whatever file they are."""
    digest = hashlib.sha256()
    for path, leaf in tree.paths(variables):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def resolve(config: configs.Config, origin: Origin | None) -> configs.Config:
    """A copy of the config in which what it leaves open is as the weights say: preprocessing, and the model with its settings.

    Raises UserError where the config names another model than theirs.
    """
    if origin is None:
        return configs.resolve(config)
    said, model = origin.said["preprocessing"], origin.said["model"]
    resolved = configs.resolve(config, said | {"mean": tuple(said["mean"]), "std": tuple(said["std"])})
    if resolved.model.name not in (None, model["name"]):
        raise UserError(
            f"The weights of init_from={config.init_from} are of {model['name']}, the config's model is {resolved.model.name}. "
            "Leave model.name out, or name theirs."
        )
    resolved.model.name = model["name"]
    for key, value in model["settings"].items():
        if key not in resolved.model.settings:
            resolved.model.settings[key] = value
    return resolved


def describe(origin: Origin | None, classes: Sequence[str]) -> dict[str, Any] | None:
    """What config.json says of the weights. The head is "kept" where the class list is theirs, in their order, else "new"."""
    if origin is None or "head" in origin.said:
        return origin and origin.said
    return origin.said | {"head": "kept" if origin.classes == tuple(classes) else "new"}


def start(
    origin: Origin | None,
    said: dict[str, Any] | None,
    model: Any,
    c: dict[str, Any],
    abstract: TrainState,
    first_images: Callable[[int], np.ndarray],
) -> tuple[Callable[[Any], TrainState], Any]:
    """(function to be jitted, its argument) that make the state at step 0: from the weights, else from a key made of the seed.

    `first_images(n)` gives the first n of the training split, uint8, to a model whose first weights come from them.
    """
    key = jax.random.key(c["seed"])
    if origin is None or said is None:
        if not model.first_images:
            return build.state_init(model, c), key
        images = (first_images(model.first_images) / 255 - np.array(c["mean"])) / np.array(c["std"])
        return build.state_from(c), model.begin(jax.device_get(jax.jit(build.model_init(model, c))(key)), images)
    return build.state_from(c), variables(origin, model, abstract, said["head"])


def variables(origin: Origin, model: Any, abstract: TrainState, head: str) -> dict[str, Any]:
    """What the run starts with, as host arrays with the shapes and dtypes of `abstract`.

    A "new" head is zero (Dosovitskiy et al. 2020, arXiv 2010.11929, section 3.1.1; Kolesnikov et al. 2019, arXiv 1912.11370): what
    the body has learnt is not disturbed by the gradient of random logits. Raises UserError where other leaves differ.
    """
    like = {"params": abstract.params, "batch_stats": abstract.batch_stats}
    ours, theirs = dict(tree.paths(like)), dict(tree.paths(origin.variables))
    new = _head(model) if head == "new" else set()
    differing = sorted(p for p in {*ours, *theirs} - new if p not in ours or p not in theirs or ours[p].shape != theirs[p].shape)
    if differing:
        raise UserError(
            f"The weights of init_from do not fit the model: {len(differing)} leaves differ, such as {', '.join(differing[:5])}. "
            "They depend on settings of the model and, in some families, on image_size."
        )
    return tree.map_with_path(lambda p, leaf: np.zeros(leaf.shape, leaf.dtype) if p in new else theirs[p].astype(leaf.dtype), like)


def _head(model: Any) -> set[str]:
    """The paths of the variables whose shape depends on the number of classes."""
    one, two = (dict(tree.paths(names.variables_like(model.clone(num_classes=n)))) for n in (1, 2))
    return {path for path in one if one[path].shape != two[path].shape}
