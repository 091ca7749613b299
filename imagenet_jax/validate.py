"""What values of a config cannot be, or not together."""

import math
import re

from imagenet_jax.config import AVERAGES, Config, resolve
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.settings import alike

BROKEN = ("fail", "substitute")  # values of data.broken
POSITIVE = (
    "image_size", "batch_size", "accumulate", "log_interval", "checkpoint_interval", "keep_checkpoints", "lr_batch", "repeats",
    "ema_interval", "decay_factor", "decay_epochs", "decay_power", "epochs", "learning_rate", "crop_ratio",
)  # fmt: skip
ZERO_IS_OFF = (
    "weight_decay", "clip_norm", "agc", "warmup_epochs", "eval_interval_epochs", "bn_group", "eval_batch_size", "keep_every",
    "max_skipped", "stall_seconds", "mixup_alpha", "cutmix_alpha", "end_learning_rate", "cooldown_epochs",
    "sam_rho", "swa_start", "eval_translate",
)  # fmt: skip
FORMS = {  # key: (what each entry is like, an example of all)
    "mean": (0.0, "(0.5,0.5,0.5)"),
    "std": (0.0, "(0.5,0.5,0.5)"),
    "decay_at": (0.0, "(0.3,0.6,0.9)"),
    "schedule_points": ((0.0, 0.0), "((0,0.1),(5,1),(90,0))"),
    "train_sizes": ((0.0, 0), "((0,128),(30,160))"),
    "no_weight_decay": ("", "('bias$',)"),
    "frozen": ("", "('^conv1/',)"),
}
YEAR = 366 * 86400.0  # seconds; Python's timers end at 292 years, faulthandler's before


def config(c: Config, *, devices: int) -> None:
    """Raise UserError for values that cannot work, or not together; `devices` share each batch evenly."""
    c = resolve(c)
    _numbers(c)
    _forms(c)
    _patterns(c)
    _pixels(c)
    _schedule(c)
    _averages(c)
    if not 0 < c.distill.alpha <= 1 or not 0 < c.distill.temperature < math.inf:
        raise UserError(f"distill.alpha={c.distill.alpha} must lie in (0, 1], distill.temperature={c.distill.temperature} above 0.")
    if c.data.broken not in BROKEN:
        raise unknown("way with broken images, data.broken,", c.data.broken, BROKEN)
    if min(c.data.threads, c.data.processes, c.data.prefetch) < 0 or c.data.max_pixels < 1:
        raise UserError("data.threads, data.processes and data.prefetch must not be negative, data.max_pixels must be at least 1.")
    if c.bce_target_threshold and not c.loss.startswith("sigmoid"):
        raise UserError("bce_target_threshold is for sigmoid losses. Set --config.loss=sigmoid, or leave it 0.")
    if c.model.param_dtype in ("bfloat16", "float16"):  # an average that keeps 0.9999 stands still in bfloat16
        raise UserError(
            f"model.param_dtype={c.model.param_dtype}: parameters and their averages would lose every change of less than a "
            "thousandth. Leave it float32; --config.model.dtype=bfloat16 is what saves time and memory."
        )
    _batches(c, devices)
    if c.model.name is None and not c.init_from:
        raise UserError("model.name is not set. Set --config.model.name (`python -m imagenet_jax.models`) or --config.init_from.")


def _numbers(c: Config) -> None:
    for key, value in c.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}={value} is no finite number.")
    for key in POSITIVE:
        if c[key] <= 0:
            raise UserError(f"{key}={c[key]} must be greater than 0. Set --config.{key}.")
    for key in ZERO_IS_OFF:
        if c[key] < 0:
            raise UserError(f"{key}={c[key]} is negative. Use --config.{key}=0 to switch it off.")
    for key in ("label_smoothing", "ema_decay", "lookahead", "schedule_free", "warmup_start", "bce_target_threshold"):
        if not 0 <= c[key] < 1:
            raise UserError(f"{key}={c[key]} must lie in [0, 1).")
    for key in ("mix_probability", "mix_switch"):
        if not 0 <= c[key] <= 1:
            raise UserError(f"{key}={c[key]} must lie in [0, 1].")
    if not 0 < c.layer_decay <= 1:
        raise UserError(f"layer_decay={c.layer_decay} must lie in (0, 1]. Use --config.layer_decay=1 to switch it off.")
    if not 0 <= c.seed < 2**32:
        raise UserError(f"seed={c.seed} must lie in 0 .. 2^32 - 1.")
    if c.stall_seconds > YEAR:
        raise UserError(f"stall_seconds={c.stall_seconds:g} is more than a year. Use --config.stall_seconds=0 for never.")


def _forms(c: Config) -> None:
    """A tuple may hold anything, however it was typed."""
    for key, (like, example) in FORMS.items():
        if not all(alike(entry, like) for entry in c[key]):
            raise UserError(f'{key}={c[key]!r} is not of the form {example}. Set as in --config.{key}="{example}".')


def _schedule(c: Config) -> None:
    if c.warmup_epochs >= c.epochs and c.warmup_epochs > 0:
        raise UserError(
            f"warmup_epochs={c.warmup_epochs:g} is not shorter than the training, epochs={c.epochs:g}. "
            f"Use --config.warmup_epochs={c.epochs / 20:g} or more epochs."
        )
    if c.warmup_epochs + c.cooldown_epochs > c.epochs:
        raise UserError(
            f"warmup_epochs={c.warmup_epochs:g} and cooldown_epochs={c.cooldown_epochs:g} do not fit into epochs={c.epochs:g}."
        )
    if not all(0 < share < 1 for share in c.decay_at):
        raise UserError(
            f"decay_at={c.decay_at} must be shares of the training, between 0 and 1. Epochs are written epoch / epochs: "
            "30 and 60 of 90 are (0.333, 0.667)."
        )


def _averages(c: Config) -> None:
    if len(kinds := [f"{key}={c[key]:g}" for key in AVERAGES if c[key]]) > 1:
        raise UserError(f"{' and '.join(kinds)}: a run keeps one average of its weights. Set all but one to 0.")
    if c.swa_start >= c.epochs:
        raise UserError(f"swa_start={c.swa_start:g} is not before the end, epochs={c.epochs:g}. SWA's authors begin at 75 %.")
    if c.schedule_free and (c.schedule != "constant" or c.cooldown_epochs):
        raise UserError(
            f"schedule_free={c.schedule_free:g} takes the place of a falling learning rate, here schedule={c.schedule}, "
            f"cooldown_epochs={c.cooldown_epochs:g}. Set --config.schedule=constant and --config.cooldown_epochs=0."
        )


def _patterns(c: Config) -> None:
    for key, pattern in [("no_weight_decay", p) for p in c.no_weight_decay] + [("frozen", p) for p in c.frozen]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{key} has {pattern!r}, which is no regular expression: {error}.") from None


def _pixels(c: Config) -> None:
    for key in ("mean", "std"):
        if len(c[key]) != 3:
            raise UserError(f"{key}={c[key]} must be three numbers, one a channel.")
    if min(c.std) <= 0:
        raise UserError(f"std={c.std} must be greater than 0.")
    if max(c.mean) > 1 or max(c.std) > 1:
        raise UserError(f"mean={c.mean} and std={c.std} are of images in 0 .. 1. Divide those of images in 0 .. 255 by 255.")
    if c.crop_ratio > 1:
        raise UserError(f"crop_ratio={c.crop_ratio} must lie in (0, 1]: the central crop's share of the short side.")
    begins, sides = [epoch for epoch, _ in c.train_sizes], [side for _, side in c.train_sizes]
    if begins and (begins != sorted(set(begins)) or begins[0] != 0 or begins[-1] >= c.epochs or min(sides) < 1):
        raise UserError(
            f"train_sizes={c.train_sizes} must be ((epoch, pixels), ...), epochs growing from 0 to less than epochs={c.epochs:g}."
        )


def _batches(c: Config, devices: int) -> None:
    each = f"{devices} devices" + (f", {c.accumulate} parts each" if c.accumulate > 1 else "")
    _divides(c.batch_size, devices * c.accumulate, "batch_size", each)
    if c.eval_batch_size:
        _divides(c.eval_batch_size, devices, "eval_batch_size", f"{devices} devices")
    if c.bn_group:
        _divides(c.batch_size, c.bn_group, "batch_size", f"BN groups of {c.bn_group}", " or another --config.bn_group")
        part = c.batch_size // (devices * c.accumulate)
        if c.accumulate > 1 and part % c.bn_group:
            raise UserError(
                f"accumulate={c.accumulate} leaves parts of {part} images to each of {devices} devices, which BN groups of "
                f"{c.bn_group} do not fill. Use a smaller --config.accumulate or --config.bn_group."
            )


def _divides(size: int, parts: int, name: str, what: str, more: str = "") -> None:
    if size % parts:
        below, above = size // parts * parts, (size // parts + 1) * parts
        either = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"{name}={size} does not divide into {what} ({size} = {size // parts} x {parts} + {size % parts}). "
            f"Use --config.{name}={either}{more}."
        )
