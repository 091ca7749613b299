"""What a run is, as config.json in its workdir: made at the start, frozen, held against every rerun, read by all others."""

import datetime
import math
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh

from imagenet_jax import checkpoint, logs, loop, models, runtime, sharding, tree
from imagenet_jax import config as configs
from imagenet_jax.data.batches.views import Pixels
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.sources import Source
from imagenet_jax.data.storage.locate import Place
from imagenet_jax.errors import UserError
from imagenet_jax.optim import masks
from imagenet_jax.plan import Plan

FORMAT = 1


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """A run's config.json. Raises UserError where `workdir` is no run."""
    path = workdir / "config.json"
    absent = f"{workdir} is no run: it has no config.json. Train into it: python -m imagenet_jax.main --workdir={workdir}"
    record = logs.needed_json(path, absent)
    if record.get("format") != FORMAT:
        raise UserError(f"{path} has format {record.get('format')}, this version reads {FORMAT}.")
    return record


def recorded_pixels(record: dict[str, Any]) -> Pixels:
    """How the run turned images into squares. Raises UserError where the engine here has another version."""
    shown = record["preprocessing"]
    wanted = shown["decoder"]
    engine = decode.engine(wanted["name"], shown["interpolation"])
    if engine.version != wanted["version"]:
        raise UserError(
            f"The run decodes images with {wanted['name']} {wanted['version']}, here is {engine.version}: their pixels differ. "
            f"Install that version, or start a new run."
        )
    limit = record["config"]["data"]["max_pixels"]
    return Pixels(engine, shown["image_size"], shown["crop_ratio"], shown["antialias"], limit)


def describe(
    c: dict[str, Any],
    model: Any,
    abstract: Any,
    train_data: Source,
    eval_data: Source,
    pixels: Pixels,
    plan: Plan,
    data_dir: Place,
    init: dict[str, Any] | None = None,
    distill: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of config.json: all that resume, evaluation and prediction need to know, and where the run came from.

    `init` is what finetune.py says of the weights that it begins from, `distill` what distill.py says of the teacher. Raises
    UserError for patterns of `frozen` that fit nothing, and for images (`train_sizes` too) that are too small for the model.
    """
    cost = models.cost(model, c["image_size"])
    if (smallest := min((side for _, side in c["train_sizes"]), default=c["image_size"])) < c["image_size"]:
        models.cost(model, smallest)
    still = masks.frozen(abstract.params, c["frozen"])
    return {
        "format": FORMAT,
        "config": c,
        "dataset": {
            "name": train_data.dataset,
            "version": train_data.version,
            "train_split": train_data.split,
            "train_images": len(train_data),
            "eval_split": eval_data.split,
            "eval_images": len(eval_data),
            "fingerprint": {"train": train_data.fingerprint, "eval": eval_data.fingerprint},
            "encoding": train_data.encoding,
            "classes": list(train_data.classes),
        },
        "preprocessing": {
            "image_size": c["image_size"],
            "crop_ratio": c["crop_ratio"],
            "interpolation": c["interpolation"],
            "antialias": c["antialias"],
            "flip": c["eval_flip"],
            "translate": c["eval_translate"],
            "mean": c["mean"],
            "std": c["std"],
            "decoder": {"name": pixels.engine.name, "version": pixels.engine.version},
        },
        "model": {
            "name": c["model"]["name"],
            "parameters": tree.count(abstract.params),
            "frozen": sum(leaf.size for leaf, still in zip(*map(jax.tree.leaves, (abstract.params, still)), strict=True) if still),
            "flops_per_image": 2 * cost.multiply_adds,
        },
        "init": init,
        "distill": distill,
        "steps": {"total": plan.total, "per_epoch": plan.per_epoch, "warmup": plan.warmup},
        "data_dir": str(data_dir.absolute()),
        "versions": runtime.versions(),
        "git_commit": runtime.git_commit(),
        "devices": runtime.devices(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def freeze(workdir: pathlib.Path, record: dict[str, Any]) -> None:
    """Write config.json, or hold `record` against the one that is there.

    What may differ is logged. Raises UserError, naming the keys, for a config, data or decoder that is not the run's own.
    """
    path = workdir / "config.json"
    if not path.exists():
        strange = [n for n in ("checkpoints", "metrics.jsonl", "tensorboard") if (workdir / n).exists()]
        if strange:
            raise UserError(f"{workdir} has {', '.join(strange)} but no config.json, so it is not known what they belong to.")
    if not path.exists() or checkpoint.latest_step(workdir / "checkpoints") is None:  # nothing to go on from: begin anew
        try:
            logs.write_json(path, record)
        except OSError as error:
            raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}.") from None
        return
    frozen = read(workdir)
    changed = configs.differences(frozen["config"], record["config"])
    refused = {k: v for k, v in changed.items() if k not in configs.FREE_ON_RESUME}
    if refused:
        listed = "; ".join(f"{k} is {old!r}, now {new!r}" for k, (old, new) in refused.items())
        raise UserError(f"{workdir} belongs to another config: {listed}. Use another --workdir, or give the same values.")
    if frozen.get("distill") != record["distill"]:
        raise UserError(
            f"{workdir} is taught by {_teacher(frozen.get('distill'))}, now by {_teacher(record['distill'])}. Give the teacher "
            "that it began with, --config.distill.weights, or use another --workdir."
        )
    recorded_pixels(frozen)
    for key in ("name", "version", "fingerprint"):
        if frozen["dataset"][key] != record["dataset"][key]:
            raise UserError(
                f"The data set has changed since {workdir} began: {key} was {frozen['dataset'][key]}, "
                f"now {record['dataset'][key]}. Restore it, or use another --workdir."
            )
    for key, (old, new) in changed.items():
        print(f"Changed since the run began, as is allowed: {key} {old!r} -> {new!r}.")
    if frozen["data_dir"] != record["data_dir"]:
        print(f"Changed since the run began, as is allowed: data_dir {frozen['data_dir']} -> {record['data_dir']}.")
        logs.write_json(path, {**frozen, "data_dir": record["data_dir"]})
    if frozen["git_commit"] != record["git_commit"]:
        print(f"Changed since the run began: git_commit {frozen['git_commit']} -> {record['git_commit']}; results may differ.")
    for key, (old, new) in configs.differences(frozen["versions"], record["versions"]).items():
        print(f"Changed since the run began: {key} {old} -> {new}; results may differ in the last bits.")


def summary(record: dict[str, Any], peak: float, mesh: Mesh) -> str:
    """What a person checks before leaving a run alone."""
    c = record["config"]
    data, model, decoder = record["dataset"], record["model"], record["preprocessing"]["decoder"]
    total, per_epoch = record["steps"]["total"], record["steps"]["per_epoch"]
    devices = record["devices"]
    rows = {
        "devices": f"{mesh.size} x {devices['kind']} ({devices['platform']}), {devices['processes']} process(es)",
        "model": f"{model['name']}, {model['parameters']:,} parameters, {model['flops_per_image'] / 1e9:.2f} GFLOP an image "
        f"forward, {c['model']['dtype']}",
        "data": f"{data['name']} {data['version']}: {data['train_images']:,} {data['train_split']}, {data['eval_images']:,} "
        f"{data['eval_split']}, {len(data['classes']):,} classes",
        "pixels": f"{c['image_size']} x {c['image_size']}, decoded by {decoder['name']} {decoder['version']}, "
        f"{c['interpolation']}, {'' if c['antialias'] else 'not '}antialiased",
        "views": ", ".join(f"from epoch {epoch:g} {side} x {side}" for epoch, side in c["train_sizes"]) or "of the same size",
        "evaluation": f"central crop of {c['crop_ratio']:g}{views(record['preprocessing'])}",
        "steps": f"{total:,} of {c['batch_size']} images = {c['epochs']:g} epochs of {per_epoch:,.1f} steps",
        "learning rate": f"peak {peak:g} = {c['learning_rate']:g} with {c['lr_scaling']} scaling from batch {c['lr_batch']} to "
        f"{c['batch_size']}; {c['schedule']} after {record['steps']['warmup']:,} warm-up steps",
        "batch norm": "running statistics, kept" if c["bn_frozen"] else f"groups of {c['bn_group'] or c['batch_size']}",
        "weights": _weights(record),
        **({"teacher": f"{_teacher(record['distill'])}, {c['distill']['kind']}"} if record["distill"] else {}),
    }
    lines = [f"{name:14s} {value}" for name, value in rows.items()]
    return "\n".join([*lines, "", "config", *(f"  {line}" for line in flat(c))]) + "\n"


def views(preprocessing: dict[str, Any]) -> str:
    """Which views of an image an evaluation averages over, as a part of a line; "" for one alone."""
    moved = f", moved by {preprocessing['translate']} px" if preprocessing.get("translate") else ""
    return ", with mirror images" * bool(preprocessing.get("flip")) + moved


def _teacher(said: dict[str, Any] | None) -> str:
    return f"{said['model']} (sha256 {said['sha256'][:12]})" if said else "nobody"


def _weights(record: dict[str, Any]) -> str:
    """Where they begin, what becomes of the head, and where the config does not follow what they say."""
    c, model, init = record["config"], record["model"], record["init"]
    parts = ["random"]
    if init:
        others = [f"{k} {c[k]} instead of their {v}" for k, v in init["preprocessing"].items() if c[k] != v]
        theirs = init["model"]["settings"]
        others += [f"{k} {v!r} instead of their {theirs.get(k)!r}" for k, v in c["model"]["settings"].items() if theirs.get(k) != v]
        head = f"new head, zero, for {len(record['dataset']['classes']):,} classes" if init["head"] == "new" else "head kept"
        parts = [f"from {c['init_from']} (sha256 {init['sha256'][:12]})", head, *others]
    if model["frozen"]:
        parts.append(f"{model['frozen']:,} of {model['parameters']:,} parameters frozen")
    if c["layer_decay"] != 1:
        parts.append(f"learning rate times {c['layer_decay']:g} a layer downwards")
    return "; ".join(parts)


def flat(c: dict[str, Any], prefix: str = "") -> list[str]:
    """A nested config as lines "model.name = 'resnet50'"."""
    lines = []
    for key, value in sorted(c.items()):
        if isinstance(value, dict) and value:
            lines += flat(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key} = {value!r}")
    return lines


def memory(train_step: Any, abstract: Any, c: dict[str, Any], mesh: Mesh, *more: Any) -> str:
    """Shapes and the compiler's own count of the memory of one training step, a device; `more` is what it takes beside a batch."""
    size = max((side for _, side in c["train_sizes"]), default=c["image_size"])
    batch = sharding.batch_shapes(mesh, c["batch_size"], size)
    with loop.out_of_memory_hint(c["batch_size"], math.lcm(mesh.size, c["bn_group"] or 1)):
        used = train_step.lower(abstract, batch, *more).compile().memory_analysis()
    lines = [f"  {path:60s} {leaf.dtype!s:10s} {tuple(leaf.shape)}" for path, leaf in tree.paths(abstract.params)]
    lines += [f"  {'batch ' + k:60s} {v.dtype!s:10s} {tuple(v.shape)}" for k, v in batch.items()]
    if used is not None:
        mib = {"arguments": used.argument_size_in_bytes, "temporaries": used.temp_size_in_bytes}
        lines.append("memory a device: " + ", ".join(f"{n} {b / 2**20:,.0f} MiB" for n, b in mib.items()))
    return "\n".join(["parameters", *lines, "Dry run: nothing was trained, and nothing written to the workdir."])
