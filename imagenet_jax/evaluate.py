"""What an evaluation writes: loss, top-1, top-5, per-class scores, calibration, confusion matrix, sample predictions.

Used by train.py at the end of a run, and as a command on a finished or running one, or on weights. The counting is in evaluator.py.
"""

import argparse
import hashlib
import pathlib
import re
from typing import Any

import numpy as np

from imagenet_jax import cli, distributed, infer, loop, processes, runtime, sharding
from imagenet_jax.data import locate
from imagenet_jax.data.sources import Source, open_source
from imagenet_jax.errors import UserError
from imagenet_jax.evaluator import Counts, Evaluator, figures
from imagenet_jax.logs import write_json
from imagenet_jax.metrics import hierarchy
from imagenet_jax.worst import worst_classes

DESCRIPTION = """Count every image of a split once, with a run's newest checkpoint or converted weights; writes DIR/eval/.

  python -m imagenet_jax.evaluate --workdir=runs/r50
  python -m imagenet_jax.evaluate --weights=weights/r50 --dataset=imagenet2012 --data_dir=~/tensorflow_datasets"""

BATCH = 64  # images at a time, where no run says otherwise


def write(
    workdir: pathlib.Path,
    evaluator: Evaluator,
    weights: dict[str, Any],
    counts: dict[str, Counts],
    run: dict[str, Any],
    step: int,
) -> dict[str, Any]:
    """Write workdir/eval/<dataset>-<split>.json with its .npz and thumbnails; returns the JSON's content."""
    source = evaluator.source
    path = result_path(workdir, source.dataset, source.split)
    result: dict[str, Any] = {
        "dataset": source.dataset,
        "version": source.version,
        "split": source.split,
        "fingerprint": source.fingerprint,
        "step": step,
        "images": len(source),
        "encoding": source.encoding,
        "preprocessing": run["preprocessing"] | {"flip": evaluator.flip},
        "decoder": run["preprocessing"]["decoder"],
        "versions": runtime.versions(),
        "devices": runtime.devices(),
        "classes": list(source.classes),
    }
    for name in ("raw", "ema"):
        c = counts.get(name)
        result[name] = c and figures(c, source.classes)
    result["hierarchy"] = hierarchy.describe(counts, source.classes)
    result["samples"] = evaluator.samples(weights, path.with_suffix(""))
    result["worst"] = {name: worst_classes(evaluator, c, path.with_suffix("")) for name, c in counts.items()}
    if runtime.is_main_process():
        arrays: dict[str, Any] = {f"confusion_{name}": c.confusion for name, c in counts.items()}
        arrays |= {f"correct_{name}": c.correct for name, c in counts.items()}  # bool, by example id
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        write_json(path, result)
    return result


def result_path(workdir: pathlib.Path, dataset: str, split: str) -> pathlib.Path:
    """workdir/eval/<dataset>-<split>.json; what a file name should not hold becomes '_', and then a hash keeps names apart."""
    name = f"{dataset}-{split}"
    plain = re.sub(r"[^\w-]+", "_", name)
    if plain != name:
        plain += f"-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return workdir / "eval" / f"{plain}.json"


def summary(result: dict[str, Any]) -> str:
    """The lines that a person wants to see."""
    step = f", step {result['step']:,}" if result["step"] else ""
    mirrored = ", with mirror images" if result["preprocessing"]["flip"] else ""
    lines = [f"{result['dataset']} {result['split']}: {result['images']:,} images{step}{mirrored}"]
    for name in ("raw", "ema"):
        if r := result[name]:
            macro = r["macro"]
            lines.append(
                f"  {name}  top-1 {r['top1']:.2%}  top-5 {r['top5']:.2%}  loss {r['loss']:.4f}  macro precision "
                f"{macro['precision']:.2%}  recall {macro['recall']:.2%}  F1 {macro['f1']:.2%}"
            )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """The command: evaluate the newest checkpoint of a run, or a folder of weights."""
    flags = _parser().parse_args(argv)
    if flags.batch_size is not None and flags.batch_size < 1:
        raise UserError(f"--batch_size={flags.batch_size} must be at least 1.")
    if (flags.workdir is None) == (flags.weights is None):
        raise UserError("Give either --workdir=RUN, or --weights=DIR with --dataset=NAME.")
    if flags.weights and flags.dataset is None:
        raise UserError("--weights needs --dataset=NAME: weights do not say what to count.")
    folder = flags.workdir or flags.weights

    distributed.start(flags)
    runtime.setup()
    mesh = sharding.make_mesh()
    loaded = infer.load_run(folder, mesh) if flags.workdir else infer.load_weights(folder, mesh)
    source = _source(flags, loaded.record)
    if source.classes != loaded.classes:
        raise UserError(f"The classes of {source.dataset} are not those that {folder} was trained on.")
    config = loaded.record["config"]
    batch_size = flags.batch_size or config.get("eval_batch_size") or config.get("batch_size", BATCH)
    batch_size = -(-batch_size // mesh.size) * mesh.size
    evaluator = Evaluator(
        loaded.model, source, loaded.pixels, mesh, batch_size=batch_size,
        mean=loaded.mean, std=loaded.std, flip=config.get("eval_flip", False),
    )  # fmt: skip
    with loop.out_of_memory_hint(batch_size, mesh.size, "--batch_size"):
        counts = evaluator.count(loaded.weights, logits=True, progress=True)
        assert counts is not None  # nothing can stop it
        result = write(folder, evaluator, loaded.weights, counts, loaded.record, loaded.step)
    print(summary(result))
    print(f"Written: {result_path(folder, source.dataset, source.split)}")
    return cli.FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("evaluate", DESCRIPTION)
    parser.add_argument("--workdir", type=pathlib.Path, metavar="RUN", help="of a run: its newest checkpoint")
    parser.add_argument("--weights", type=pathlib.Path, metavar="DIR", help="of `convert`: with their own preprocessing")
    parser.add_argument("--dataset", metavar="NAME", help="NAME[/CONFIG][:VERSION] or a path; default: the run's")
    parser.add_argument("--split", help="any tfds split expression; default: the run's evaluation split, of --dataset, validation")
    parser.add_argument("--data_dir", help="default: where the run found its data, else TFDS_DATA_DIR, else tfds' own")
    parser.add_argument("--batch_size", type=int, help=f"images at a time; changes no result; default: the run's, else {BATCH}")
    processes.add_flags(parser)
    return parser


def _source(flags: argparse.Namespace, record: dict[str, Any]) -> Source:
    """The data that the flags name, else the run's."""
    if flags.dataset:
        return open_source(locate.data_dir(flags.data_dir), flags.dataset, flags.split or "validation")
    data, recorded = record["dataset"], locate.place(record["data_dir"])
    data_dir = recorded if flags.data_dir is None and recorded.is_dir() else locate.data_dir(flags.data_dir)
    return open_source(data_dir, f"{data['name']}:{data['version']}", flags.split or data["eval_split"])


if __name__ == "__main__":
    cli.run(main)
