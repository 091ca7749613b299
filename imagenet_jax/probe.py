"""What frozen features are worth on a data set: `python -m imagenet_jax.probe`. The maths is in metrics/probes.py."""

import argparse
import contextlib
import pathlib
import sys
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from imagenet_jax import cli, infer, loop, runtime, sharding, step
from imagenet_jax.data import order
from imagenet_jax.data.batches import loader
from imagenet_jax.data.reading.sources import Source, open_source
from imagenet_jax.data.storage import locate
from imagenet_jax.errors import RunError, UserError
from imagenet_jax.logs import write_json
from imagenet_jax.metrics import probes

DESCRIPTION = """Judge the frozen features of a folder of weights, or of a run, by simple classifiers: they learn a training split.

  kNN       the 20 nearest by cosine vote with weight exp(s / 0.07) (Wu et al. 2018)
  ridge     least squares in closed form; the penalty by leave-one-out
  logistic  multinomial, L-BFGS; the penalty by a fifth of the training split held out, then fitted to all of it

Images are seen as the weights say, by their evaluation view. The data set is a prepared one or the path of a plain folder."""

RIDGE_PENALTIES = tuple(10.0**e for e in range(-7, 3))
LOGISTIC_PENALTIES = tuple(10.0**e for e in range(1, -5, -1))  # each fit starts from the one before, which is nearly there
HELD_OUT = 5  # one in so many


def main(argv: list[str]) -> int:
    """Parse, compute the features of both splits, fit the three, print, and write what was asked for."""
    flags = _parser().parse_args(argv)
    if flags.batch_size < 1:
        raise UserError(f"--batch_size={flags.batch_size} must be at least 1.")
    data_dir = locate.data_dir(flags.data_dir)
    learnt, counted = (open_source(data_dir, flags.dataset, split) for split in (flags.train_split, flags.eval_split))
    if counted.classes != learnt.classes:
        raise UserError(f"The classes of {flags.train_split} are not those of {flags.eval_split}.")
    if len(learnt) < HELD_OUT:
        raise UserError(f"{learnt.dataset} {learnt.split} has {len(learnt)} images; a probe needs {HELD_OUT} at least.")
    runtime.setup()
    mesh = sharding.make_mesh()
    loaded = infer.load(flags.weights, mesh)
    batch_size = -(-flags.batch_size // mesh.size) * mesh.size
    with loop.out_of_memory_hint(batch_size, mesh.size, "--batch_size"):
        splits = [features(loaded, source, mesh, batch_size) for source in (learnt, counted)]
    results = probe(*splits[0], *splits[1], len(learnt.classes))

    name, width, size = loaded.record["config"]["model"]["name"], splits[0][0].shape[1], loaded.pixels.image_size
    print(f"{name} of {flags.weights}: {width:,} features of {size} x {size} pixels, frozen")
    print(f"{learnt.dataset} {learnt.version}: {len(learnt):,} {learnt.split}, {len(counted):,} {counted.split}", end="")
    print(f", {len(learnt.classes):,} classes\n")
    for method, result in results.items():
        top1, count = result["top1"], f"{result['correct']:,} of {result['images']:,}"
        print(f"{method:9s} top-1 {top1:7.2%}  {count:>16s}  {result['how']}")
    if flags.json:
        try:
            write_json(flags.json, _content(flags.weights, loaded, learnt, counted, results))
        except OSError as error:
            raise UserError(f"{flags.json} cannot be written: {error.strerror or error}.") from None
    return cli.FINISHED


def features(loaded: infer.LoadedModel, source: Source, mesh: Mesh, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pooled features of every image's evaluation view, float32 (n, d), and the labels, int32 (n,), in stored order.

    Raises RunError where a feature is not finite.
    """
    function = step.make_feature_step(loaded.model, mean=loaded.mean, std=loaded.std)
    rows = loader.Rows(*sharding.rows_of_process(batch_size))
    found, labels = [], []
    total = -(-len(source) // batch_size)
    with (
        contextlib.closing(loader.eval_batches(source, loaded.pixels, batch_size=batch_size, rows=rows)) as host,
        tqdm(total=total, desc=f"features of {source.split}", unit="batch", leave=False, disable=not sys.stderr.isatty()) as bar,
    ):
        pairs = ((batch["label"], batch["image"]) for batch in host)
        for label, pooled in infer.outputs(function, loaded.weights[loaded.best], mesh, pairs):
            found.append(pooled)
            labels.append(label)
            bar.update()
    pooled = np.concatenate(found)[: len(source)]
    if not np.isfinite(pooled).all():
        raise RunError(f"{int((~np.isfinite(pooled)).any(1).sum()):,} images have features that are not finite: bad weights.")
    return pooled, np.concatenate(labels)[: len(source)]


def probe(
    train_x: np.ndarray, train_y: np.ndarray, eval_x: np.ndarray, eval_y: np.ndarray, classes: int
) -> dict[str, dict[str, Any]]:
    """Method -> top1, correct, images, penalty and how it came about; features (n, d), labels (n,)."""
    predicted = probes.nearest(train_x, train_y, eval_x, classes)
    results = {"kNN": _result(predicted, eval_y, None, "k=20, T=0.07")}
    train_x, eval_x = probes.standardized(train_x, eval_x)
    fitted = probes.ridge(train_x, train_y, classes, RIDGE_PENALTIES)
    how = f"penalty {_shown(fitted.penalty, RIDGE_PENALTIES)}, by leave-one-out"
    results["ridge"] = _result(fitted.predict(eval_x), eval_y, fitted.penalty, how)
    fitted, held_out = _logistic(train_x, train_y, classes)
    how = f"penalty {_shown(fitted.penalty, LOGISTIC_PENALTIES)}, by {held_out:.2%} of a fifth held out"
    how += "" if fitted.converged else "; not converged"
    results["logistic"] = _result(fitted.predict(eval_x), eval_y, fitted.penalty, how)
    return results


def _logistic(x: np.ndarray, y: np.ndarray, classes: int) -> tuple[probes.Linear, float]:
    """Fitted to all with the penalty that did best on the fifth that was held out, and its top-1 there."""
    shuffled = order.permute(np.arange(len(x)), len(x), 0)  # a plain folder is sorted by class
    held, kept = np.split(shuffled, [len(x) // HELD_OUT])
    best, fitted = (-1.0, None), None
    for penalty in LOGISTIC_PENALTIES:
        fitted = probes.logistic(x[kept], y[kept], classes, penalty, start=fitted)
        score = float(np.mean(fitted.predict(x[held]) == y[held]))
        best = max(best, (score, fitted), key=lambda pair: pair[0])  # of equals, the larger penalty
    score, fitted = best
    assert fitted is not None
    return probes.logistic(x, y, classes, fitted.penalty, start=fitted), score


def _result(predicted: np.ndarray, labels: np.ndarray, penalty: float | None, how: str) -> dict[str, Any]:
    correct = int((predicted == labels).sum())
    return {"top1": correct / len(labels), "correct": correct, "images": len(labels), "penalty": penalty, "how": how}


def _shown(penalty: float, penalties: tuple[float, ...]) -> str:
    at_end = penalty in (penalties[0], penalties[-1])  # then a wider range might do better
    return f"{penalty:g}{', at the end' if at_end else ''} of {len(penalties)} tried"


def _content(weights: pathlib.Path, loaded: infer.LoadedModel, learnt: Source, counted: Source, results: Any) -> dict[str, Any]:
    return {
        "weights": str(weights),
        "model": loaded.record["config"]["model"],
        "source": loaded.record.get("source") or {"step": loaded.step, "weights": loaded.best},
        "dataset": learnt.dataset,
        "version": learnt.version,
        "splits": {s.split: {"images": len(s), "fingerprint": s.fingerprint} for s in (learnt, counted)},
        "classes": list(learnt.classes),
        "preprocessing": {
            **{key: getattr(loaded.pixels, key) for key in ("image_size", "crop_ratio", "antialias")},
            "interpolation": loaded.pixels.engine.interpolation,
            "mean": loaded.mean,
            "std": loaded.std,
            "decoder": {"name": loaded.pixels.engine.name, "version": loaded.pixels.engine.version},
        },
        "versions": runtime.versions(),
        "devices": runtime.devices(),
        "probes": results,
    }


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("probe", DESCRIPTION)
    parser.add_argument("--weights", type=cli.path, required=True, metavar="DIR|RUN", help="of `convert`, or of a run")
    parser.add_argument("--dataset", required=True, help="NAME[/CONFIG][:VERSION], or the path of a folder SPLIT/CLASS/IMAGE")
    parser.add_argument("--data_dir", help="of prepared data sets; default: TFDS_DATA_DIR, else ~/tensorflow_datasets")
    parser.add_argument("--train_split", default="train", help="default: train")
    parser.add_argument("--eval_split", default="validation", help="default: validation")
    parser.add_argument("--batch_size", type=int, default=64, help="images at a time; default 64")
    parser.add_argument("--json", type=cli.new_file, metavar="FILE", help="write counts, penalties and circumstances")
    return parser


if __name__ == "__main__":
    cli.run(main)
