"""One training step and one evaluation step: pure functions from state and batch to state and sums, jitted by the caller.

The training step never lets a non-finite loss or gradient touch the state: parameters, BN statistics, optimizer and averages
stay as they are, and only `step`, the position in the data, moves on.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
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
from imagenet_jax.models.batch_norm import MOMENTS
from imagenet_jax.ops.images import normalize
from imagenet_jax.ops.losses import Loss, cross_entropy, smoothed_targets, soft_cross_entropy
from imagenet_jax.ops.mix import Mixing
from imagenet_jax.optim import averages, masks
from imagenet_jax.optim.accumulate import accumulated
from imagenet_jax.optim.averages import Average
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
    average: Average | None = None,
    schedule_free: float = 0.0,
    sam_rho: float = 0.0,
    taught: Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array] | None = None,
    mixing: Mixing | None = None,
    frozen: Sequence[str] = (),
    seed: int = 0,
    mesh: Mesh | None = None,
    accumulate: int = 1,
) -> Callable[..., tuple[TrainState, Sums]]:
    """(state, {"image": uint8 (n, h, w, 3), "label": int32 (n,)}) -> (state, sums over the batch).

    With a teacher, its variables are a third argument, and `taught` (distill.py) is the objective instead of `loss`.

    The sums: "images", "loss" (the training objective), "top1" (of the augmented images, against their labels; of a mixed
    one, against the label with the larger share), "nonfinite" (1 where the step was skipped) and "learning_rate".
    `mixing` is ops/mix.py's `mix` with its settings, or None; `seed` and the step decide what it draws, and what dropout drops.
    `average` is kept in state.ema. With `schedule_free` = beta it is averages.schedule_free, and gradients are taken `between` it
    and the parameters. With `sam_rho` the gradient is that at parameters + sam_rho * gradient / its norm (Foret et al. 2020, arXiv
    2010.01412, equations 2 and 3), of the same batch, mixed and dropped alike; norm and gradients are those of the whole batch,
    whatever devices and parts. Loss, top-1 and BN statistics are the first pass's, as in the authors' code.
    Parameters in whose paths one of the patterns `frozen` is found have no gradient, and no backward pass is computed for them.
    The state is split over the axis 'fsdp' of `mesh` (None: one device), as sharding.of_state says. Each device computes its rows
    in `accumulate` parts, which changes no result but what dropout draws; raises UserError where BN groups do not allow it.
    """
    mesh = mesh or sharding.make_mesh(jax.devices()[:1])

    def key_of(step: jax.Array, purpose: int) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), purpose)

    def loss_fn(params: Any, fixed: Any, batch: dict[str, jax.Array], dropout: jax.Array) -> tuple[jax.Array, Any]:
        batch_stats, teacher = fixed
        images = normalize(batch["image"], mean, std, model.dtype)
        still = masks.frozen(params, frozen)
        params = jax.tree.map(lambda p, stop: jax.lax.stop_gradient(p) if stop else p, params, still)
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout})
        # In float32, exact up to 2^24 images: beside the loss it needs no all-reduce of its own.
        right = jnp.sum(topk.correct(logits, batch["label"], 1), dtype=jnp.float32)
        each = loss(logits, batch["target"]) if taught is None else taught(teacher, batch["image"], logits, batch["target"])
        return jnp.mean(each), (right, updated.get("batch_stats", {}))

    if accumulate > 1:
        gradient = accumulated(loss_fn, mesh, accumulate, max(1, model.bn_group))
    else:
        gradient = jax.value_and_grad(loss_fn, has_aux=True)

    def train_step(state: TrainState, batch: dict[str, jax.Array], teacher: Any = None) -> tuple[TrainState, Sums]:
        if accumulate > 1 and state.batch_stats and not model.bn_group:
            raise UserError(
                f"accumulate={accumulate} computes a batch in parts, but bn_group=0 normalises over all of it. "
                "Set --config.bn_group to a divisor of a part, such as 32."
            )
        batch = batch | {"target": smoothed_targets(batch["label"], model.num_classes, label_smoothing, model.wide)}
        if mixing is not None:
            images, targets = mixing(key_of(state.step, MIXING), batch["image"], batch["target"])
            batch = {"image": images, "label": jnp.argmax(targets, axis=-1), "target": targets}

        def gradient_at(params: Any) -> tuple[tuple[jax.Array, tuple[jax.Array, Any]], Any]:
            whole = sharding.gathered(mesh, params)
            aux, grads = gradient(whole, (state.batch_stats, teacher), batch, key_of(state.step, DROPOUT))
            return aux, sharding.scattered(mesh, grads)

        here = averages.between(schedule_free, state.params, state.ema) if schedule_free else state.params
        (objective, (right, batch_stats)), grads = gradient_at(here)
        finite = jnp.isfinite(objective) & jnp.isfinite(norm := optax.tree.norm(grads))
        if sam_rho:
            reach = sam_rho / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
            _, grads = gradient_at(jax.tree.map(lambda p, g: p + reach.astype(p.dtype) * g, here, grads))
            finite &= jnp.isfinite(optax.tree.norm(grads))
        rate = schedule(state.step)
        directions, opt_state = optimizer.update(grads, state.opt_state, here)
        params = jax.tree.map(lambda p, d: p - rate.astype(p.dtype) * d, state.params, directions)
        kept, going_on = state.ema, {"params": params, "batch_stats": batch_stats}
        if average is not None:
            kept, going_on = average(state.ema, going_on, state.step, rate)

        new = TrainState(state.step, going_on["params"], going_on["batch_stats"], opt_state, kept)
        new = jax.tree.map(lambda n, old: jnp.where(finite, n, old), new, state)
        count = batch["label"].shape[0]
        sums = {
            "images": jnp.asarray(count, jnp.int32),
            "loss": objective * count,
            "top1": right,
            "nonfinite": 1 - finite.astype(jnp.int32),
            "learning_rate": rate,
        }
        return new.replace(step=state.step + 1), sums

    return train_step


def make_moments_step(
    model: Classifier, *, mean: Sequence[float], std: Sequence[float], seed: int = 0
) -> Callable[[dict[str, Any], jax.Array, jax.Array], Any]:
    """(variables, uint8 images, number of the batch) -> BatchNorm's statistics of this batch alone; {} without BatchNorm."""

    def moments_step(variables: dict[str, Any], images: jax.Array, number: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), DROPOUT)
        images = normalize(images, mean, std, model.dtype)
        _, found = model.apply(variables, images, train=True, mutable=["batch_stats", MOMENTS], rngs={"dropout": key})
        return found.get(MOMENTS, {})

    return moments_step


def make_eval_step(
    model: Classifier,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int,
    flip: bool = False,
    translate: int = 0,
    columns: Sequence[int] | None = None,
) -> Callable[[dict[str, Any], Sums, dict[str, jax.Array]], tuple[Sums, jax.Array, jax.Array]]:
    """(variables, sums so far, batch with "mask") -> (sums, loss sum of this batch, its logits). Padded examples count nowhere.

    The sums are integers, so they are exact and do not depend on batch size or devices: "images", "top1", "top5", "confusion"
    (classes, classes). Start from `zero_sums`. Loss sums go out a batch at a time, to be added in float64 on the host. With `flip`,
    logits are the mean of those of the image and its mirror image, with `translate` also of images moved by so many pixels, where
    the edge is reflected (both as in airbench, arXiv 2404.00498, section 3.5). `columns` are the model's classes that the labels
    count, if they count fewer.
    """

    def eval_step(variables: dict[str, Any], sums: Sums, batch: dict[str, jax.Array]) -> tuple[Sums, jax.Array, jax.Array]:
        images = normalize(batch["image"], mean, std, model.dtype)
        each = (weight * _logits(model, variables, view, columns) for weight, view in _views(images, flip, translate))
        logits = functools.reduce(jnp.add, each)
        label, mask = batch["label"], batch["mask"]
        losses = jnp.where(mask, cross_entropy(logits, label), 0)
        new = {
            "images": sums["images"] + jnp.sum(mask, dtype=jnp.int32),
            "top1": sums["top1"] + jnp.sum(topk.correct(logits, label, 1) & mask, dtype=jnp.int32),
            "top5": sums["top5"] + jnp.sum(topk.correct(logits, label, min(5, num_classes)) & mask, dtype=jnp.int32),
            "confusion": add_to_confusion(sums["confusion"], jnp.argmax(logits, -1), label, mask),
        }
        return new, jnp.sum(losses), logits

    return eval_step


def _views(images: jax.Array, flip: bool, translate: int) -> Iterator[tuple[float, jax.Array]]:
    """(weight, view): the images; moved too, together as heavy, by `translate` pixels up-left and down-right; each mirrored too."""
    moved = [(1.0, images)]
    if translate:
        height, width = images.shape[1:3]
        margin = (translate, translate)
        padded = jnp.pad(images, ((0, 0), margin, margin, (0, 0)), mode="reflect")
        moved = [(0.5, images), *((0.25, padded[:, at : at + height, at : at + width]) for at in (2 * translate, 0))]
    for weight, view in moved:
        yield from ((weight / 2, view), (weight / 2, view[:, :, ::-1])) if flip else ((weight, view),)


def zero_sums(num_classes: int) -> Sums:
    """Where an evaluation starts."""
    zero = jnp.zeros((), jnp.int32)
    return {"images": zero, "top1": zero, "top5": zero, "confusion": jnp.zeros((num_classes, num_classes), jnp.int32)}


def make_predict_step(
    model: Classifier, *, mean: Sequence[float], std: Sequence[float], columns: Sequence[int] | None = None
) -> Callable[[dict[str, Any], jax.Array], jax.Array]:
    """(variables, uint8 images (n, h, w, 3)) -> class probabilities (n, classes), float32 or wider; of `columns` alone, if any."""

    def predict_step(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        return jax.nn.softmax(_logits(model, variables, normalize(images, mean, std, model.dtype), columns))

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


def _logits(model: Classifier, variables: dict[str, Any], images: jax.Array, columns: Sequence[int] | None) -> jax.Array:
    logits = cast(jax.Array, model.apply(variables, images, train=False))  # no collection is mutable, so logits alone come back
    return logits if columns is None else logits[:, jnp.asarray(columns)]
