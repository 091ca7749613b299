"""One training step and one evaluation step: pure functions from state and batch to state and sums, jitted by the caller.

The training step never lets a non-finite loss or gradient touch the state: parameters, BN statistics, optimizer and averages
stay as they are, and only `step`, the position in the data, moves on.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from imagenet_jax import sharding
from imagenet_jax.errors import UserError
from imagenet_jax.metrics import topk
from imagenet_jax.metrics.confusion import add_to_confusion
from imagenet_jax.models import Classifier
from imagenet_jax.ops.images import normalize
from imagenet_jax.ops.losses import Loss, cross_entropy, smoothed_targets, soft_cross_entropy
from imagenet_jax.ops.mix import Mixing
from imagenet_jax.optim import ema, masks
from imagenet_jax.optim.accumulate import accumulated
from imagenet_jax.optim.schedules import Schedule
from imagenet_jax.state import TrainState

Sums = dict[str, jax.Array]

# What the random key of a step is for: fold_in(fold_in(key(seed), step), purpose).
MIXING, DROPOUT = 0, 1


def make_train_step(
    model: Classifier,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    label_smoothing: float = 0.0,
    loss: Loss = soft_cross_entropy,
    ema_decay: float = 0.0,
    ema_interval: int = 1,
    mixing: Mixing | None = None,
    frozen: Sequence[str] = (),
    seed: int = 0,
    mesh: Mesh | None = None,
    accumulate: int = 1,
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Sums]]:
    """(state, {"image": uint8 (n, h, w, 3), "label": int32 (n,)}) -> (state, sums over the batch).

    The sums: "images", "loss" (the training objective), "top1" (of the augmented images, against their labels; of a mixed
    one, against the label with the larger share), "nonfinite" (1 where the step was skipped) and "learning_rate".
    `mixing` is ops/mix.py's `mix` with its settings, or None; `seed` and the step decide what it draws, and what dropout drops.
    Parameters in whose paths one of the patterns `frozen` is found have no gradient, and no backward pass is computed for them.
    The state is split over the axis 'fsdp' of `mesh` (None: one device), as sharding.of_state says. Each device computes its rows
    in `accumulate` parts, which changes no result but what dropout draws; raises UserError where BN groups do not allow it.
    """
    mesh = mesh or sharding.make_mesh(jax.devices()[:1])

    def key_of(step: jax.Array, purpose: int) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), purpose)

    def loss_fn(params: Any, batch_stats: Any, batch: dict[str, jax.Array], dropout: jax.Array) -> tuple[jax.Array, Any]:
        images = normalize(batch["image"], mean, std, model.dtype)
        still = masks.frozen(params, frozen)
        params = jax.tree.map(lambda p, stop: jax.lax.stop_gradient(p) if stop else p, params, still)
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout})
        right = jnp.sum(topk.correct(logits, batch["label"], 1))
        return jnp.mean(loss(logits, batch["target"])), (right, updated.get("batch_stats", {}))

    if accumulate > 1:
        gradient = accumulated(loss_fn, mesh, accumulate, max(1, model.bn_group))
    else:
        gradient = jax.value_and_grad(loss_fn, has_aux=True)

    def train_step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Sums]:
        if accumulate > 1 and state.batch_stats and not model.bn_group:
            raise UserError(
                f"accumulate={accumulate} computes a batch in parts, but bn_group=0 normalises over all of it. "
                "Set --config.bn_group to a divisor of a part, such as 32."
            )
        batch = batch | {"target": smoothed_targets(batch["label"], model.num_classes, label_smoothing, model.wide)}
        if mixing is not None:
            images, targets = mixing(key_of(state.step, MIXING), batch["image"], batch["target"])
            batch = {"image": images, "label": jnp.argmax(targets, axis=-1), "target": targets}
        whole = sharding.gathered(mesh, state.params)
        (objective, (right, batch_stats)), grads = gradient(whole, state.batch_stats, batch, key_of(state.step, DROPOUT))
        grads = sharding.scattered(mesh, grads)
        rate = schedule(state.step)
        directions, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - rate.astype(p.dtype) * d, state.params, directions)
        average = state.ema
        if ema_decay:
            average = ema.update(state.ema, {"params": params, "batch_stats": batch_stats}, ema_decay, state.step, ema_interval)

        finite = jnp.isfinite(objective) & jnp.isfinite(optax.tree.norm(grads))
        new = TrainState(state.step, params, batch_stats, opt_state, average)
        kept = jax.tree.map(lambda n, old: jnp.where(finite, n, old), new, state)
        count = batch["label"].shape[0]
        sums = {
            "images": jnp.asarray(count, jnp.int32),
            "loss": objective * count,
            "top1": right,
            "nonfinite": 1 - finite.astype(jnp.int32),
            "learning_rate": rate,
        }
        return kept.replace(step=state.step + 1), sums

    return train_step


def make_eval_step(
    model: Classifier, *, mean: Sequence[float], std: Sequence[float], num_classes: int, flip: bool = False
) -> Callable[[dict[str, Any], Sums, dict[str, jax.Array]], tuple[Sums, jax.Array]]:
    """(variables, sums so far, batch with "mask") -> (sums, loss sum of this batch). Padded examples count nowhere.

    The sums are integers, so they are exact and do not depend on batch size or devices: "images", "top1", "top5", "confusion"
    (classes, classes). Start from `zero_sums`. Loss sums go out a batch at a time, to be added in float64 on the host. With `flip`,
    logits are the mean of those of the image and its mirror image.
    """

    def eval_step(variables: dict[str, Any], sums: Sums, batch: dict[str, jax.Array]) -> tuple[Sums, jax.Array]:
        images = normalize(batch["image"], mean, std, model.dtype)
        logits = _logits(model, variables, images)
        if flip:
            logits = (logits + _logits(model, variables, images[:, :, ::-1])) / 2
        label, mask = batch["label"], batch["mask"]
        losses = jnp.where(mask, cross_entropy(logits, label), 0)
        new = {
            "images": sums["images"] + jnp.sum(mask, dtype=jnp.int32),
            "top1": sums["top1"] + jnp.sum(topk.correct(logits, label, 1) & mask, dtype=jnp.int32),
            "top5": sums["top5"] + jnp.sum(topk.correct(logits, label, min(5, num_classes)) & mask, dtype=jnp.int32),
            "confusion": add_to_confusion(sums["confusion"], jnp.argmax(logits, -1), label, mask),
        }
        return new, jnp.sum(losses)

    return eval_step


def zero_sums(num_classes: int) -> Sums:
    """Where an evaluation starts."""
    zero = jnp.zeros((), jnp.int32)
    return {"images": zero, "top1": zero, "top5": zero, "confusion": jnp.zeros((num_classes, num_classes), jnp.int32)}


def make_predict_step(
    model: Classifier, *, mean: Sequence[float], std: Sequence[float]
) -> Callable[[dict[str, Any], jax.Array], jax.Array]:
    """(variables, uint8 images (n, h, w, 3)) -> class probabilities (n, classes), float32 or wider."""

    def predict_step(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        return jax.nn.softmax(_logits(model, variables, normalize(images, mean, std, model.dtype)))

    return predict_step


def make_feature_step(
    model: Classifier, *, mean: Sequence[float], std: Sequence[float]
) -> Callable[[dict[str, Any], jax.Array], jax.Array]:
    """(variables, uint8 images (n, h, w, 3)) -> the model's pooled features (n, d), float32 or wider."""

    def feature_step(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        maps = model.apply(variables, normalize(images, mean, std, model.dtype), method="features")
        return cast(dict[str, jax.Array], maps)["pooled"]

    return feature_step


def make_embed_step(
    model: Classifier, *, mean: Sequence[float], std: Sequence[float], top: int
) -> Callable[[dict[str, Any], jax.Array], dict[str, jax.Array]]:
    """(variables, uint8 images (n, h, w, 3)) -> what an index keeps of each.

    "vector": the pooled features, scaled to length 1, float32 (n, d); "classes" int32 (n, top) and "probabilities" float32
    (n, top): the `top` most probable classes, in falling order.
    """

    def embed_step(variables: dict[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        out = cast(
            dict[str, jax.Array], model.apply(variables, normalize(images, mean, std, model.dtype), False, True, method="forward")
        )
        length = jnp.linalg.norm(out["pooled"], axis=1, keepdims=True)
        probabilities, classes = jax.lax.top_k(jax.nn.softmax(out["logits"]), top)
        return {
            "vector": (out["pooled"] / jnp.maximum(length, 1e-12)).astype(jnp.float32),
            "classes": classes.astype(jnp.int32),
            "probabilities": probabilities.astype(jnp.float32),
        }

    return embed_step


def _logits(model: Classifier, variables: dict[str, Any], images: jax.Array) -> jax.Array:
    return cast(jax.Array, model.apply(variables, images, train=False))  # no collection is mutable, so logits alone come back
