"""Count every image of a split exactly once, under ever new weights: sums on the device, and logits on the host for who asks.

The last batch is padded and the padding masked; the number of images counted is checked against the data set's.
"""

import copy
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from PIL import Image
from tqdm import tqdm

from imagenet_jax import loop, runtime, sharding
from imagenet_jax import step as steps
from imagenet_jax.data import order
from imagenet_jax.data.augmentation.augment import central
from imagenet_jax.data.batches import loader
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.sources import Source
from imagenet_jax.errors import RunError
from imagenet_jax.metrics import bootstrap, calibration, confusion

SAMPLES = 40
THUMBNAIL = 128  # pixels
LOGITS = 2 << 30  # bytes that are kept on the host for each set of weights: 50,000 images of 1,000 classes are 0.2 GB


@dataclasses.dataclass(frozen=True)
class Counts:
    """Exact counts of one set of weights on one split."""

    images: int
    loss: float
    top1: float
    top5: float
    confusion: np.ndarray  # int64 (classes, classes), rows true
    labels: np.ndarray  # int32 (images,), in stored order; so are the logits. Both are empty where they were not kept
    logits: np.ndarray  # float32 or wider (images, classes)

    @property
    def correct(self) -> np.ndarray:
        """bool (images,): whether the largest logit is the label's, by the rule of metrics/topk.py; empty without logits."""
        if not len(self.logits):
            return np.zeros(0, bool)
        return (np.argmax(self.logits, 1) == self.labels) & ~np.isnan(self.logits).any(1)


def figures(counts: Counts, classes: Sequence[str]) -> dict[str, Any]:
    """What an evaluation says of one set of weights, for JSON: {"loss", "top1", "top5", "top1_interval", "macro", "weighted",
    "per_class", "calibration"}.

    The interval is bootstrap.interval's; temperatures are fitted to those images whose example ids hash to an odd number. Both are
    None where no logits were kept.
    """
    known = len(counts.logits) > 0
    held_out = order.hash64_each(0, np.arange(len(counts.logits))) % 2 == 0
    return {
        "loss": counts.loss,
        "top1": counts.top1,
        "top5": counts.top5,
        "top1_interval": bootstrap.interval(counts.correct) if known else None,
        **confusion.scores(counts.confusion, classes),
        "calibration": calibration.summary(counts.logits, counts.labels, held_out) if known else None,
    }


class Evaluator:
    """The jitted evaluation of one model on one split; `count` may be called with ever new weights.

    With `flip` and `translate`, what is counted are mean logits over several views of an image (step.py); samples show one view's.
    `columns` are the model's classes that the source's are, where the source has fewer (ImageNet-A); the others' are ignored.
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
        columns: Sequence[int] | None = None,
        hosting: dict[str, int] | None = None,
    ):
        self.source, self.pixels, self.mesh, self.batch_size = source, pixels, mesh, batch_size
        self.views = {"flip": flip, "translate": translate}
        self._hosting = hosting or {}  # threads, processes, prefetch
        place, split = sharding.replicated(mesh), sharding.batched(mesh)
        view: dict[str, Any] = {"mean": mean, "std": std, "columns": columns}
        step = steps.make_eval_step(model, num_classes=len(source.classes), **self.views, **view)
        # Logits stay where they were computed, unless someone wants them: no device waits for another's.
        out = (place, place, split)
        self._step = jax.jit(step, donate_argnums=1, in_shardings=(place, place, split), out_shardings=out)
        self._zero = jax.jit(lambda: steps.zero_sums(len(source.classes)), out_shardings=place)
        predict = steps.make_predict_step(model, **view)
        self._predict = jax.jit(predict, in_shardings=(place, split), out_shardings=place)

    def on(self, source: Source) -> "Evaluator":
        """The same, compiled once, on another split with the same classes."""
        other = copy.copy(self)
        other.source = source
        return other

    def count(
        self,
        weights: dict[str, Any],
        *,
        logits: bool = False,
        stopping: Callable[[], bool] = lambda: False,
        progress: bool = False,
    ) -> dict[str, Counts] | None:
        """Counts of each set of weights over all images, which are decoded once; None where `stopping` says so before the end.

        `logits` keeps those of every image, if they fit into `LOGITS` bytes. Raises RunError where the number of images counted is
        not the data set's.
        """
        weights = sharding.replicate(self.mesh, weights)  # from the parts that a training over 'fsdp' has
        rows = loader.Rows(*sharding.rows_of_process(self.batch_size))
        host = loader.eval_batches(self.source, self.pixels, batch_size=self.batch_size, rows=rows, **self._hosting)
        total = -(-len(self.source) // self.batch_size)
        bar = tqdm(total=total, desc="evaluate", unit="batch", leave=False, disable=not (progress and sys.stderr.isatty()))
        logits = logits and 4 * len(self.source) * len(self.source.classes) <= LOGITS
        sums = {name: self._zero() for name in weights}
        losses: dict[str, list[jax.Array]] = {name: [] for name in weights}
        outputs: dict[str, list[Any]] = {name: [] for name in weights}  # (labels, logits); those of the last steps on the device
        keep = ("image", "label", "mask")
        try:
            for batch in loop.ahead(host, lambda b: sharding.put_batch(self.mesh, {k: b[k] for k in keep})):
                for name, variables in weights.items():
                    sums[name], loss, output = self._step(variables, sums[name], batch)
                    losses[name].append(loss)
                    if logits:
                        outputs[name].append(sharding.replicate(self.mesh, (batch["label"], output)))
                    if len(losses[name]) > loop.IN_FLIGHT:
                        jax.block_until_ready(losses[name][-1 - loop.IN_FLIGHT])
                    if len(outputs[name]) > loop.IN_FLIGHT:
                        outputs[name][-1 - loop.IN_FLIGHT] = jax.device_get(outputs[name][-1 - loop.IN_FLIGHT])
                bar.update()
                if stopping():
                    return None
        finally:
            bar.close()
            host.close()
        return {name: self._ratios(jax.device_get(sums[name]), losses[name], outputs[name]) for name in weights}

    def _ratios(self, sums: dict[str, np.ndarray], losses: list[jax.Array], outputs: list[Any]) -> Counts:
        images = int(sums["images"])
        if images != len(self.source):
            raise RunError(f"{images:,} images were counted, the split has {len(self.source):,}: this is a fault of imagenet_jax.")
        labels, logits = np.zeros(0, np.int32), np.zeros((0, 0), np.float32)
        if outputs:
            labels, logits = map(np.concatenate, zip(*jax.device_get(outputs), strict=True))
        return Counts(
            images=images,
            loss=float(np.sum(np.asarray(jax.device_get(losses), np.float64)) / images),
            top1=int(sums["top1"]) / images,
            top5=int(sums["top5"]) / images,
            confusion=np.asarray(sums["confusion"], np.int64),
            labels=labels[:images],
            logits=logits[:images],
        )

    def samples(self, weights: dict[str, Any], folder: pathlib.Path) -> list[dict[str, Any]]:
        """Predictions on a fixed random choice of images, with thumbnails written into `folder`."""
        count = min(SAMPLES, len(self.source))
        ids = np.sort(order.permute(np.arange(count), len(self.source), order.hash64(0)))
        size = -(-count // self.mesh.size) * self.mesh.size
        images = np.zeros((size, self.pixels.image_size, self.pixels.image_size, 3), np.uint8)
        records = [self.source.read(int(i)) for i in ids]
        writes = runtime.is_main_process()
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
        for record, index, slot in zip(records, ids, images, strict=False):
            self._view(record.image, self.pixels.antialias, slot)
            if writes:
                self.write_thumbnail(record.image, folder / f"{index:08d}.jpg")
        first, share = sharding.rows_of_process(size)
        on_device = sharding.put_batch(self.mesh, {"image": images[first : first + share]})["image"]
        weights = sharding.replicate(self.mesh, weights)
        shown = {name: np.asarray(jax.device_get(self._predict(v, on_device))) for name, v in weights.items()}
        return [
            {
                "thumbnail": f"{folder.name}/{index:08d}.jpg",
                "file_name": record.name,
                "label": record.label,
                "label_name": self.source.classes[record.label],
                **{name: self._top(p[i]) for name, p in shown.items()},
            }
            for i, (record, index) in enumerate(zip(records, ids, strict=True))
        ]

    def write_thumbnail(self, data: bytes, path: pathlib.Path) -> None:
        """Write the evaluation view of one encoded image as a small JPEG."""
        small = np.empty((THUMBNAIL, THUMBNAIL, 3), np.uint8)
        self._view(data, True, small)
        Image.fromarray(small).save(path, quality=90)

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
