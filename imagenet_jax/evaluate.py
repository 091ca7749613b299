"""What an evaluation writes: loss, top-1, top-5, per-class scores, calibration, confusion matrix, sample predictions.

Used by train.py at the end of a run, and as a command on a finished or running one, or on weights. The counting is in evaluator.py.
"""

import argparse
import hashlib
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from imagenet_jax import cli, distributed, infer, processes, record, runtime, sharding, suite
from imagenet_jax.data.labels.classes import readable, wnids
from imagenet_jax.data.reading.sources import Source, open_source
from imagenet_jax.data.storage import locate
from imagenet_jax.errors import UserError
from imagenet_jax.evaluator import LOGITS, Counts, Evaluator, figures
from imagenet_jax.logs import write_json
from imagenet_jax.metrics import hierarchy
from imagenet_jax.worst import worst_classes

DESCRIPTION = """Count every image of a split once, with a run's newest checkpoint or converted weights; writes DIR/eval/.

  python -m imagenet_jax.evaluate --workdir=runs/r50
  python -m imagenet_jax.evaluate --weights=weights/r50 --dataset=imagenet2012 --data_dir=~/tensorflow_datasets
  python -m imagenet_jax.evaluate --weights=weights/r50 --suite=paper
  python -m imagenet_jax.evaluate --weights=weights/r50 --dataset=imagenet2012 --image_size=224,256,288 --flip

The suite: ImageNet's validation split with its own labels, ReaL's and the multi-label ones, ImageNet-V2 (three), A, R, Sketch and C
(mCE). Suites and several views are a table, which goes to DIR/suite/; its last columns are the ECE of half of the images, as it is
and with the temperature T that was fitted to the other half.

Exit codes: 0 finished, 1 the run failed, 2 a mistake in the flags, 3 finished, but sets of the suite are not prepared."""

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
        "preprocessing": run["preprocessing"] | evaluator.views,
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
    lines = [f"{result['dataset']} {result['split']}: {result['images']:,} images{step}{record.views(result['preprocessing'])}"]
    for name in ("raw", "ema"):
        if r := result[name]:
            macro = r["macro"]
            lines.append(
                f"  {name}  top-1 {r['top1']:.2%}  top-5 {r['top5']:.2%}  loss {r['loss']:.4f}  macro precision "
                f"{macro['precision']:.2%}  recall {macro['recall']:.2%}  F1 {macro['f1']:.2%}"
            )
            lines.append(f"  {'':{len(name)}}  {_calibrated(r)}")
    return "\n".join(lines)


def _calibrated(r: dict[str, Any]) -> str:
    if r["top1_interval"] is None:
        return f"no calibration: the logits take more than {LOGITS / 2**30:.0f} GiB"
    low, high = r["top1_interval"]
    text = f"top-1 95 % [{low:.2%}, {high:.2%}]"
    if (c := r["calibration"]) is None:
        return text + "  no calibration: some logits are not finite"
    text += f"  ECE {c['ece']:.3f} ({c['ece_by_chance']:.3f} by chance)  Brier {c['brier']:.3f}"
    if t := c["temperature"]:
        text += f"  T {t['value']:.2f}, fitted to {t['fitted_to']:,} images; ECE of the other {t['reported_on']:,} "
        text += f"{t['before']['ece']:.3f}, with it {t['after']['ece']:.3f} ({t['after']['ece_by_chance']:.3f} by chance)"
    return text


def main(argv: list[str]) -> int:
    """The command: evaluate the newest checkpoint of a run, or a folder of weights."""
    flags = _parser().parse_args(argv)
    if flags.batch_size is not None and flags.batch_size < 1:
        raise UserError(f"--batch_size={flags.batch_size} must be at least 1.")
    if (flags.workdir is None) == (flags.weights is None):
        raise UserError("Give either --workdir=RUN, or --weights=DIR with --dataset=NAME.")
    folder = flags.workdir or flags.weights
    if (folder / "weights.json").is_file() and flags.dataset is None and flags.suite is None:
        raise UserError(f"{folder} holds weights, which do not say what to count: --dataset=NAME, or --suite=paper.")

    distributed.start(flags)
    runtime.setup()
    mesh = sharding.make_mesh()
    loaded = infer.load(folder, mesh)
    config = loaded.record["config"]
    batch_size = flags.batch_size or config.get("eval_batch_size") or config.get("batch_size", BATCH)
    counter = suite.Counter(loaded, mesh, -(-batch_size // mesh.size) * mesh.size)

    def written(evaluator: Evaluator, counts: dict[str, Counts]) -> dict[str, Any]:
        return write(folder, evaluator, loaded.weights, counts, loaded.record, loaded.step)

    if flags.suite or flags.image_size or flags.flip:
        return _suite(flags, folder, counter, written)
    source = _source(flags, loaded.record)
    evaluator = counter.evaluator(source, counter.own)
    print(summary(written(evaluator, counter.count(evaluator))))
    print(f"Written: {result_path(folder, source.dataset, source.split)}")
    return cli.FINISHED


def _suite(flags: argparse.Namespace, folder: pathlib.Path, counter: suite.Counter, written: Callable[..., Any]) -> int:
    """Count a suite of sets, or one set in several views, and print each row when it is known."""
    run, name = counter.loaded.record, flags.suite
    if name:
        if counter.loaded.classes != tuple(readable(wnids())):
            raise UserError(f"--suite={name} is for models of ImageNet's 1,000 classes.")
        val = _source(flags, run) if flags.dataset else None
        found = suite.find_paper(_data_dir(flags, run), val)
    else:
        source = _source(flags, run)
        name = result_path(folder, source.dataset, source.split).stem
        found = suite.Suite({f"{source.dataset} {source.split}": source}, {}, {}, [])
    flips = sorted({counter.own.flip, counter.own.flip or flags.flip})
    views = [
        suite.View(size, flip, counter.own.translate) for size in flags.image_size or [counter.own.image_size] for flip in flips
    ]
    rows = []
    print(suite.HEADING)
    for row in suite.rows(found, counter, views, written):
        print(suite.line(row.content), flush=True)
        rows.append(row)
    print(f"Written: {suite.write(folder, name, rows, counter, found.missing)}")
    for line in found.missing:
        print(f"Not prepared: {line}", file=sys.stderr)
    return cli.PARTLY if found.missing else cli.FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("evaluate", DESCRIPTION)
    parser.add_argument("--workdir", type=cli.path, metavar="RUN", help="of a run: its newest checkpoint")
    parser.add_argument("--weights", type=cli.path, metavar="DIR", help="of `convert`: with their own preprocessing")
    parser.add_argument("--dataset", metavar="NAME", help="NAME[/CONFIG][:VERSION] or a path; default: the run's")
    parser.add_argument("--split", help="any tfds split expression; default: the run's evaluation split, of --dataset, validation")
    parser.add_argument("--data_dir", help="default: where the run found its data, else TFDS_DATA_DIR, else tfds' own")
    parser.add_argument("--suite", choices=("paper",), help="all sets that papers report, as far as they are prepared")
    parser.add_argument("--image_size", type=_sizes, metavar="PIXELS[,...]", help="test resolutions; default: the model's")
    parser.add_argument("--flip", action="store_true", help="count with the mean of an image's and its mirror image's logits, too")
    parser.add_argument("--batch_size", type=int, help=f"images at a time; changes no result; default: the run's, else {BATCH}")
    processes.add_flags(parser)
    return parser


def _source(flags: argparse.Namespace, run: dict[str, Any]) -> Source:
    """The data that the flags name, else the run's."""
    if flags.dataset:
        return open_source(locate.data_dir(flags.data_dir), flags.dataset, flags.split or "validation")
    data = run["dataset"]
    return open_source(_data_dir(flags, run), f"{data['name']}:{data['version']}", flags.split or data["eval_split"])


def _data_dir(flags: argparse.Namespace, run: dict[str, Any]) -> locate.Place:
    """The directory that the flags name, else where the run found its data, if that is still there."""
    if flags.data_dir is None and "data_dir" in run and (recorded := locate.place(run["data_dir"])).is_dir():
        return recorded
    return locate.data_dir(flags.data_dir)


def _sizes(text: str) -> list[int]:
    if not all(size.isdecimal() and int(size) for size in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not sizes in pixels with commas, such as 224,256")
    return [int(size) for size in text.split(",")]


if __name__ == "__main__":
    cli.run(main)
