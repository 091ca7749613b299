"""A teacher for a run: any weights that can be loaded, which see the student's views through their own mean and std.

Its weights are an argument of the training step and no part of the state, so no checkpoint holds them; config.json holds the sha256
of their content, and a resume asks for the same. It runs as in evaluation, in the student's dtype, and sees mixed images mixed.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from imagenet_jax import build, finetune, infer, sharding, tree
from imagenet_jax.errors import UserError
from imagenet_jax.ops import distillation, losses
from imagenet_jax.ops.images import normalize

# (teacher's variables, uint8 images, logits, targets) -> the objective, (n,)
Objective = Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]


class Teacher(NamedTuple):
    """`variables` lie whole on every device; `said` is config.json's "distill"."""

    variables: dict[str, Any]
    objective: Objective
    said: dict[str, Any]


def find(c: dict[str, Any], classes: Sequence[str], mesh: Mesh) -> Teacher | None:
    """The teacher that a plain config asks for, None without.

    Raises UserError where distill.weights is neither a folder of weights nor a run, knows other classes, or does not take the
    training's image sizes.
    """
    wanted = c["distill"]
    distillation.make(wanted["kind"], wanted["temperature"])  # a typo is one, with or without a teacher
    if not wanted["weights"]:
        return None
    folder = pathlib.Path(wanted["weights"])
    if not folder.is_dir():
        raise UserError(f"distill.weights={folder} is no folder. Make one: python -m imagenet_jax.convert, or name a run.")
    loaded = infer.load(folder, mesh)
    if loaded.classes != tuple(classes):
        raise UserError(
            f"The teacher of distill.weights={folder} knows {len(loaded.classes):,} classes that are not the data set's."
        )
    model, variables = loaded.model.clone(dtype=jnp.dtype(c["model"]["dtype"])), loaded.weights[loaded.best]
    for _, side in c["train_sizes"] or [(0, c["image_size"])]:
        _check_size(model, variables, side, folder)
    name, host = loaded.record["config"]["model"]["name"], jax.device_get(variables)
    said = {"sha256": finetune.content_hash(host), "weights": loaded.best, "step": loaded.step, "model": name}
    return Teacher(sharding.replicate(mesh, variables), objective(c, build.loss(c, classes), model, loaded.mean, loaded.std), said)


def objective(
    c: dict[str, Any], loss: losses.Loss, model: Any, mean: Sequence[float], std: Sequence[float]
) -> Objective:  # fmt: skip
    """(1 - alpha) * the config's `loss` + alpha * the divergence from what `model` says of the same images."""
    wanted = c["distill"]
    divergence = distillation.make(wanted["kind"], wanted["temperature"])

    def of(teacher: Any, images: jax.Array, logits: jax.Array, targets: jax.Array) -> jax.Array:
        taught = jax.lax.stop_gradient(model.apply(teacher, normalize(images, mean, std, model.dtype), train=False))
        learnt = divergence(logits, taught.astype(logits.dtype))
        return (1 - wanted["alpha"]) * loss(logits, targets) + wanted["alpha"] * learnt

    return of


def _check_size(model: Any, variables: Any, side: int, folder: pathlib.Path) -> None:
    images = jax.ShapeDtypeStruct((1, side, side, 3), model.dtype)
    like = jax.eval_shape(lambda images: model.init(jax.random.key(0), images, train=False), images)
    ours, theirs = ({path: leaf.shape for path, leaf in tree.paths(t)} for t in (like, variables))
    if ours != theirs:
        raise UserError(
            f"The teacher of distill.weights={folder} does not take views of {side} pixels, as its weights depend on the size. "
            "Train at its size (image_size, train_sizes), or choose a teacher that is convolutional."
        )
