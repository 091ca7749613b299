"""From a plain (JSON) config to the objects of a run: model, optimizer, learning rate, state; for training and for loading."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from imagenet_jax import models, sharding
from imagenet_jax.config import AVERAGES
from imagenet_jax.data.labels import wordnet
from imagenet_jax.errors import UserError
from imagenet_jax.models.batch_norm import RUNNING
from imagenet_jax.ops import losses
from imagenet_jax.ops.mix import Mixing, mix
from imagenet_jax.optim import averages, optimizers, schedules
from imagenet_jax.plan import Plan
from imagenet_jax.state import TrainState, make_init


def model(config: dict[str, Any], num_classes: int) -> Any:
    """The Linen module that a plain (JSON) config describes."""
    chosen = config["model"]
    return models.create(
        chosen["name"],
        num_classes=num_classes,
        dtype=chosen["dtype"],
        param_dtype=chosen["param_dtype"],
        bn_group=RUNNING if config["bn_frozen"] else config["bn_group"],
        **chosen["settings"],
    )


def optimizer(config: dict[str, Any]) -> Any:
    """The optax transformation that a plain (JSON) config describes.

    A frozen parameter has no gradient (step.py); here it gets no weight decay either, so that its direction is 0. Raises UserError
    for schedule-free learning with momentum.
    """
    settings = dict(config["optimizer"])
    name = settings.pop("name")
    if config["schedule_free"]:
        optimizers.without_momentum(name, settings)
    made = optimizers.make(
        name,
        weight_decay=config["weight_decay"],
        no_weight_decay=(*config["no_weight_decay"], *config["frozen"]),
        clip_norm=config["clip_norm"],
        agc=config["agc"],
        **settings,
    )
    if config["layer_decay"] == 1:
        return made
    depths = models.depths(model(config, num_classes=1))
    top = max(depths.values())
    return optax.chain(made, optimizers.scale({path: config["layer_decay"] ** (top - depth) for path, depth in depths.items()}))


def schedule(config: dict[str, Any], plan: Plan) -> tuple[schedules.Schedule, float]:
    """The learning rate as a function of the step, and its peak."""
    peak = schedules.peak(config["learning_rate"], config["batch_size"], config["lr_scaling"], config["lr_batch"])
    function = schedules.make(
        config["schedule"],
        peak=peak,
        total_steps=plan.total,
        warmup_steps=plan.warmup,
        warmup_start=config["warmup_start"],
        end=config["end_learning_rate"],
        decay_at=config["decay_at"],
        decay_factor=config["decay_factor"],
        decay_steps=config["decay_epochs"] * plan.per_epoch,
        power=config["decay_power"],
        points=[(epoch * plan.per_epoch, share) for epoch, share in config["schedule_points"]],
        cooldown_steps=round(config["cooldown_epochs"] * plan.per_epoch),
    )
    return function, peak


def mixing(config: dict[str, Any]) -> Mixing | None:
    """What mixes the images and targets of a training batch; None where both alphas are 0."""
    if not config["mixup_alpha"] and not config["cutmix_alpha"]:
        return None
    return functools.partial(
        mix,
        mixup_alpha=config["mixup_alpha"],
        cutmix_alpha=config["cutmix_alpha"],
        probability=config["mix_probability"],
        switch=config["mix_switch"],
    )


def loss(config: dict[str, Any], classes: Sequence[str]) -> losses.Loss:
    """The training objective, of logits and targets of these classes.

    Raises UserError for semantic_softmax where they are not ImageNet's, or need a WordNet that is not installed.
    """
    if config["loss"] != "semantic_softmax":
        return losses.make(config["loss"], config["bce_target_threshold"])
    wnids = wordnet.wnids_of(classes)
    if not wnids:
        raise UserError("loss=semantic_softmax needs a data set whose classes are ImageNet's (wnids). Use --config.loss=softmax.")
    parents = wordnet.hierarchy_of(wnids).nearest_classes(wnids)
    return losses.make(config["loss"], parents=parents, label_smoothing=config["label_smoothing"])


def label_smoothing(config: dict[str, Any]) -> float:
    """Of the targets: none where the objective smooths within groups of its own."""
    return 0.0 if config["loss"] == "semantic_softmax" else config["label_smoothing"]


def average(config: dict[str, Any], plan: Plan) -> averages.Average | None:
    """How the average of the weights moves, None where none is kept; validate.py sees to it that only one kind is asked for."""
    interval = config["ema_interval"]
    if config["swa_start"]:
        return averages.swa(round(config["swa_start"] * plan.per_epoch), interval)
    if config["lookahead"]:
        return averages.lookahead(config["lookahead"], interval, plan.total)
    if config["schedule_free"]:
        return averages.schedule_free
    return averages.ema(config["ema_decay"], interval) if config["ema_decay"] else None


def model_init(model: Any, config: dict[str, Any]) -> Any:
    """Key -> the model's random variables."""
    size = config["image_size"]  # MLP-Mixer's parameters depend on it
    return lambda key: model.init(key, jax.numpy.zeros((1, size, size, 3), model.dtype), train=False)


def state_init(model: Any, config: dict[str, Any]) -> Any:
    """Key -> TrainState at step 0, to be jitted."""
    return make_init(model_init(model, config), optimizer(config), with_ema=any(config[key] for key in AVERAGES))


def state_from(config: dict[str, Any]) -> Any:
    """Variables -> TrainState at step 0, to be jitted: for weights that are there already."""
    return make_init(lambda variables: variables, optimizer(config), with_ema=any(config[key] for key in AVERAGES))


def abstract_state(model: Any, config: dict[str, Any], mesh: Mesh) -> TrainState:
    """The state's shapes, dtypes and shardings, without computing anything."""
    shapes = jax.eval_shape(state_init(model, config), jax.random.key(0))
    place = sharding.of_state(mesh, shapes)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, place)
