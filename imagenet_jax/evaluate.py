"""Count every image of a split exactly once: loss, top-1, top-5, per-class scores, confusion matrix, sample predictions.

The last batch is padded and the padding masked; the number of images counted is checked against the data set's. Used by
train.py at the end and during a run, and as a command on a finished or running one.
"""

import argparse
import dataclasses
import hashlib
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from PIL import Image
from tqdm import tqdm

from imagenet_jax import cli, distributed, infer, loop, processes, record, runtime, sharding
from imagenet_jax import step as steps
from imagenet_jax.data import decode, loader, locate, order
from imagenet_jax.data.augment import central
from imagenet_jax.data.sources import Source, open_source
from imagenet_jax.errors import RunError, UserError
from imagenet_jax.logs import write_json
from imagenet_jax.metrics import confusion

DESCRIPTION = """Count every image of a split once, with a run's newest checkpoint or converted weights; writes DIR/eval/.

  python -m imagenet_jax.evaluate --workdir=runs/r50
  python -m imagenet_jax.evaluate --weights=weights/r50 --dataset=imagenet2012 --data_dir=~/tensorflow_datasets"""

BATCH = 64  # images at a time, where no run says otherwise
SAMPLES = 40
THUMBNAIL = 128  # pixels


@dataclasses.dataclass(frozen=True)
class Counts:
    """Exact counts of one set of weights on one split."""

    images: int
    loss: float
    top1: float
    top5: float
    confusion: np.ndarray  # int64 (classes, classes), rows true


class Evaluator:
    """The jitted evaluation of one model on one split; `count` may be called with ever new weights.

    With `flip` and `translate`, what is counted are mean logits over several views of an image (step.py); samples show one view's.
    """

    def __init__(
        self,
        model: Any,
        source: Source,
        pixels: loader.Pixels,
        mesh: Mesh,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        flip: bool = False,
        translate: int = 0,
        hosting: dict[str, int] | None = None,
    ):
        self.source, self.pixels, self.mesh, self.batch_size = source, pixels, mesh, batch_size
        self.views = {"flip": flip, "translate": translate}
        self._hosting = hosting or {}  # threads, processes, prefetch
        place, split = sharding.replicated(mesh), sharding.batched(mesh)
        step = steps.make_eval_step(model, mean=mean, std=std, num_classes=len(source.classes), **self.views)
        self._step = jax.jit(step, donate_argnums=1, in_shardings=(place, place, split), out_shardings=place)
        self._zero = jax.jit(lambda: steps.zero_sums(len(source.classes)), out_shardings=place)
        predict = steps.make_predict_step(model, mean=mean, std=std)
        self._predict = jax.jit(predict, in_shardings=(place, split), out_shardings=place)

    def count(
        self, weights: dict[str, Any], *, stopping: Callable[[], bool] = lambda: False, progress: bool = False
    ) -> dict[str, Counts] | None:
        """Counts of each set of weights over all images, which are decoded once; None where `stopping` says so before the end.

        Raises RunError where the number of images counted is not the data set's.
        """
        weights = sharding.replicate(self.mesh, weights)  # from the parts that a training over 'fsdp' has
        rows = loader.Rows(*sharding.rows_of_process(self.batch_size))
        host = loader.eval_batches(
            self.source,
            self.pixels,
            batch_size=self.batch_size,
            rows=rows,
            **self._hosting,
        )
        total = -(-len(self.source) // self.batch_size)
        bar = tqdm(total=total, desc="evaluate", unit="batch", leave=False, disable=not (progress and sys.stderr.isatty()))
        sums = {name: self._zero() for name in weights}
        losses: dict[str, list[jax.Array]] = {name: [] for name in weights}
        keep = ("image", "label", "mask")
        try:
            for batch in loop.ahead(host, lambda b: sharding.put_batch(self.mesh, {k: b[k] for k in keep})):
                for name, variables in weights.items():
                    sums[name], loss = self._step(variables, sums[name], batch)
                    losses[name].append(loss)
                    if len(losses[name]) > loop.IN_FLIGHT:
                        jax.block_until_ready(losses[name][-1 - loop.IN_FLIGHT])
                bar.update()
                if stopping():
                    return None
        finally:
            bar.close()
            host.close()
        return {name: self._ratios(jax.device_get(sums[name]), losses[name]) for name in weights}

    def _ratios(self, sums: dict[str, np.ndarray], losses: list[jax.Array]) -> Counts:
        images = int(sums["images"])
        if images != len(self.source):
            raise RunError(f"{images:,} images were counted, the split has {len(self.source):,}: this is a fault of imagenet_jax.")
        return Counts(
            images=images,
            loss=float(np.sum(np.asarray(jax.device_get(losses), np.float64)) / images),
            top1=int(sums["top1"]) / images,
            top5=int(sums["top5"]) / images,
            confusion=np.asarray(sums["confusion"], np.int64),
        )

    def samples(self, weights: dict[str, Any], folder: pathlib.Path) -> list[dict[str, Any]]:
        """Predictions on a fixed random choice of images, with thumbnails written into `folder`."""
        count = min(SAMPLES, len(self.source))
        ids = np.sort(order.permute(np.arange(count), len(self.source), order.hash64(0)))
        size = -(-count // self.mesh.size) * self.mesh.size
        images = np.zeros((size, self.pixels.image_size, self.pixels.image_size, 3), np.uint8)
        examples = [self.source.read(int(i)) for i in ids]
        writes = runtime.is_main_process()
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
        for example, index, slot in zip(examples, ids, images, strict=False):
            self._view(example.image, self.pixels.antialias, slot)
            if writes:
                small = np.empty((THUMBNAIL, THUMBNAIL, 3), np.uint8)
                self._view(example.image, True, small)
                Image.fromarray(small).save(folder / f"{index:08d}.jpg", quality=90)
        first, share = sharding.rows_of_process(size)
        on_device = sharding.put_batch(self.mesh, {"image": images[first : first + share]})["image"]
        weights = sharding.replicate(self.mesh, weights)
        shown = {name: np.asarray(jax.device_get(self._predict(v, on_device))) for name, v in weights.items()}
        return [
            {
                "thumbnail": f"{folder.name}/{index:08d}.jpg",
                "file_name": example.name,
                "label": example.label,
                "label_name": self.source.classes[example.label],
                **{name: self._top(p[i]) for name, p in shown.items()},
            }
            for i, (example, index) in enumerate(zip(examples, ids, strict=True))
        ]

    def _view(self, data: bytes, antialias: bool, out: np.ndarray) -> None:
        """The evaluation view of one encoded image, at the size of `out`."""
        pixels = self.pixels
        decode.render(
            data, lambda h, w: central(h, w, len(out), pixels.crop_ratio), pixels.engine, antialias, out, pixels.max_pixels
        )  # fmt: skip

    def _top(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        best = np.argsort(-probabilities, kind="stable")[:5]
        names = self.source.classes
        return [{"index": int(i), "name": names[i], "probability": float(probabilities[i])} for i in best]


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
        result[name] = c and {
            "loss": c.loss, "top1": c.top1, "top5": c.top5, **confusion.scores(c.confusion, source.classes)
        }  # fmt: skip
    result["samples"] = evaluator.samples(weights, path.with_suffix(""))
    if runtime.is_main_process():
        matrices: dict[str, Any] = {f"confusion_{name}": c.confusion for name, c in counts.items()}
        np.savez_compressed(path.with_suffix(".npz"), **matrices)
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
        translate=config.get("eval_translate", 0),
    )  # fmt: skip
    with loop.out_of_memory_hint(batch_size, mesh.size, "--batch_size"):
        counts = evaluator.count(loaded.weights, progress=True)
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


def _source(flags: argparse.Namespace, run: dict[str, Any]) -> Source:
    """The data that the flags name, else the run's."""
    if flags.dataset:
        return open_source(locate.data_dir(flags.data_dir), flags.dataset, flags.split or "validation")
    data, recorded = run["dataset"], locate.place(run["data_dir"])
    data_dir = recorded if flags.data_dir is None and recorded.is_dir() else locate.data_dir(flags.data_dir)
    return open_source(data_dir, f"{data['name']}:{data['version']}", flags.split or data["eval_split"])


if __name__ == "__main__":
    cli.run(main)
