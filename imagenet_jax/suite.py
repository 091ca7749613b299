"""Several sets, sizes and mirrored views of one model, a row each: `evaluate --suite=paper`, `--image_size=224,256`, `--flip`.

All numbers of a row come from one count of every image. ReaL and the multi-label annotations are other labels for the validation
images, so they cost no more than a look at its logits. Everything goes to DIR/suite/NAME.json; NAME.npz beside it holds, for each
row, float32 values by example id, whose mean is the row's top-1 and from which two models are compared in pairs (NaN: not counted).
"""

import hashlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from imagenet_jax import infer, loop, runtime
from imagenet_jax.data.labels import papers, relabels
from imagenet_jax.data.reading import sources
from imagenet_jax.data.reading.sources import Source, open_source
from imagenet_jax.data.storage.locate import Place
from imagenet_jax.errors import UserError
from imagenet_jax.evaluator import Counts, Evaluator, figures
from imagenet_jax.logs import write_json
from imagenet_jax.metrics import bootstrap

Written = Callable[[Evaluator, dict[str, Counts]], Any]


class View(NamedTuple):
    """How every image is shown."""

    image_size: int
    flip: bool
    translate: int = 0  # pixels, as airbench


class Row(NamedTuple):
    """One line of the table, and what it was of each image."""

    content: dict[str, Any]  # for JSON
    values: np.ndarray | None  # float32 (n,); None where there is nothing by example id


class Suite(NamedTuple):
    """What is there to count."""

    sets: dict[str, Source]  # as papers call them
    corrupted: dict[tuple[str, int], Source]  # ImageNet-C's parts, by corruption and severity
    labels: dict[str, list[frozenset[int] | None]]  # other ones for the validation images, by example id; None: not counted
    missing: list[str]  # a line for each other set, with the command that brings it there


VAL, C = "ImageNet", "ImageNet-C"
PAPER = {
    VAL: "imagenet2012",
    "ImageNet-V2": "imagenet_v2/matched-frequency",
    "ImageNet-V2 threshold": "imagenet_v2/threshold-0.7",
    "ImageNet-V2 top images": "imagenet_v2/topimages",
    "ImageNet-A": "imagenet_a",
    "ImageNet-R": "imagenet_r",
    "ImageNet-Sketch": "imagenet_sketch",
}
RESTRICTED = ("imagenet_a", "imagenet_r")  # logits of all other classes are left out (Hendrycks et al. 2021, both papers)
# Mean error of AlexNet over the five severities (Hendrycks and Dietterich 2019, arXiv 1903.12261, in their published code).
ALEXNET = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880,
    "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572,
    "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056, "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}  # fmt: skip


class Counter:
    """Counts any split in any view with one model; what was compiled for a view serves all splits with the same classes."""

    def __init__(self, loaded: infer.LoadedModel, mesh: Mesh, batch_size: int):
        self.loaded, self.mesh, self.batch_size = loaded, mesh, batch_size
        c = loaded.record["config"]
        self.own = View(loaded.pixels.image_size, c.get("eval_flip", False), c.get("eval_translate", 0))
        self._compiled: dict[Any, Evaluator] = {}

    def evaluator(self, source: Source, view: View) -> Evaluator:
        """Of `source` in `view`. Raises UserError where the model does not know its classes."""
        crop_ratio = 1.0 if source.dataset.startswith("imagenet_c/") else self.loaded.pixels.crop_ratio  # C is cropped already
        columns = columns_of(source, self.loaded.classes)
        key = columns, view, crop_ratio
        if key not in self._compiled:
            pixels = self.loaded.pixels._replace(image_size=view.image_size, crop_ratio=crop_ratio)
            self._compiled[key] = Evaluator(
                self.loaded.model, source, pixels, self.mesh, batch_size=self.batch_size, mean=self.loaded.mean,
                std=self.loaded.std, flip=view.flip, translate=view.translate, columns=columns,
            )  # fmt: skip
        return self._compiled[key].on(source)

    def count(self, evaluator: Evaluator) -> dict[str, Counts]:
        """Every image, with its logits, of each set of weights."""
        with loop.out_of_memory_hint(self.batch_size, self.mesh.size, "--batch_size"):
            counts = evaluator.count(self.loaded.weights, logits=True, progress=True)
        assert counts is not None  # nothing can stop it
        return counts

    def check(self, view: View) -> None:
        """Raise UserError where the model takes no images of that size; its own message says why."""
        images = jax.ShapeDtypeStruct((1, view.image_size, view.image_size, 3), self.loaded.model.dtype)
        jax.eval_shape(lambda v, x: self.loaded.model.apply(v, x, train=False), self.loaded.weights[self.loaded.best], images)


def columns_of(source: Source, known: tuple[str, ...]) -> tuple[int, ...] | None:
    """The places of the source's classes among the `known` ones of a model, None where they are the same.

    Raises UserError where they are others, or fewer in a set for which that is not the rule.
    """
    restricted = source.dataset in RESTRICTED
    if restricted and len(source.classes) > (most := papers.SETS[source.dataset].classes):  # tfds' own builder lists all 1,000
        raise UserError(f"{source.dataset} lists {len(source.classes):,} classes and shows {most}: prepare it with --overwrite.")
    if source.classes == known:
        return None
    place = {name: i for i, name in enumerate(known)}
    if not restricted or not set(source.classes) <= set(place):
        raise UserError(f"The classes of {source.dataset} are not those that the model was trained on.")
    return tuple(place[name] for name in source.classes)


def find_paper(data_dir: Place, val: Source | None) -> Suite:
    """What is prepared in `data_dir`; `val` stands for imagenet2012's validation split. Raises UserError where nothing is."""
    prepare = "python -m imagenet_jax.prepare"
    sets, corrupted, missing = {VAL: val} if val else {}, {}, []
    for name, dataset in PAPER.items():
        if name not in sets and sources.prepared_versions(data_dir / dataset):
            sets[name] = open_source(data_dir, dataset, "validation" if name == VAL else papers.SPLIT)
        elif name not in sets:
            where = "--manual_dir=DIR" if name == VAL else f"--source={papers.SETS[dataset].file}"
            missing.append(f"{name}: {prepare} {dataset} {where} --data_dir={data_dir}")
    for corruption in papers.CORRUPTIONS:
        for severity in papers.SEVERITIES:
            if sources.prepared_versions(data_dir / (dataset := f"imagenet_c/{corruption}_{severity}")):
                corrupted[corruption, severity] = open_source(data_dir, dataset, papers.SPLIT)
    parts = len(papers.CORRUPTIONS) * len(papers.SEVERITIES)
    if lacking := parts - len(corrupted):
        missing.append(f"{C}, {lacking} of {parts} parts: {prepare} imagenet_c --source=FOLDER|TAR --data_dir={data_dir}")
    found = {name: relabels.find(data_dir, name) for name in relabels.LABELS}
    for name, one in relabels.LABELS.items():
        if not found[name]:
            missing.append(f"{name}: curl --create-dirs -o {data_dir}/downloads/manual/{one.file} {one.url}")
    if not sets and not corrupted:
        raise UserError("Nothing of this suite is prepared.\n" + "\n".join(missing))
    images = sets.get(VAL)
    names = [images.read(i).name.split("/")[-1] for i in range(len(images))] if images and any(found.values()) else []
    labels = {name: [right.get(file) for file in names] for name, right in found.items() if right}
    for name in [name for name, answers in labels.items() if not any(a is not None for a in answers)]:
        del labels[name]
        missing.append(f"{name}: it goes by file names, ILSVRC2012_val_NNNNNNNN.JPEG; prepare imagenet2012's validation split")
    return Suite(sets, corrupted, labels, missing)


def rows(suite: Suite, counter: Counter, views: Sequence[View], written: Written) -> Iterator[Row]:
    """A row for each set, view and weights, as they are counted.

    `written` is told the counts in the model's own view, but those of ImageNet-C.
    """
    for source in (*suite.sets.values(), *suite.corrupted.values()):  # now, and not after hours
        columns_of(source, counter.loaded.classes)
    for view in views:
        counter.check(view)
    for view in views:
        for name, source in suite.sets.items():
            evaluator = counter.evaluator(source, view)
            counts = counter.count(evaluator)
            if view == counter.own:
                written(evaluator, counts)
            for weights, c in counts.items():
                yield (row := of_set(name, evaluator, weights, c))
                if name == VAL:
                    yield from (relabelled(row, c, label, answers) for label, answers in suite.labels.items())
        yield from of_corruptions(suite.corrupted, counter, view)


def of_set(name: str, evaluator: Evaluator, weights: str, c: Counts) -> Row:
    """What an ordinary evaluation says, but for single classes."""
    numbers = figures(c, evaluator.source.classes)
    del numbers["per_class"]
    published = papers.SETS.get(evaluator.source.dataset)
    content = _identity(name, evaluator, weights) | {"images": c.images, "published_images": published and published.images}
    return Row(content | numbers, c.correct.astype(np.float32) if len(c.logits) else None)


def relabelled(row: Row, c: Counts, label: str, answers: Sequence[frozenset[int] | None]) -> Row:
    """The row of the same predictions under other labels: right for an image if among its `answers` (n,), not counted if None."""
    judged = np.array([right is not None for right in answers])
    predicted = np.argmax(c.logits, 1)
    values = np.array([p in (right or ()) for p, right in zip(predicted, answers, strict=True)], np.float32)
    if relabels.LABELS[label].by_class:  # the mean over classes, as one over images
        images = np.bincount(c.labels[judged], minlength=c.logits.shape[1])
        values *= judged.sum() / (np.count_nonzero(images) * np.maximum(images, 1)[c.labels])
    values = np.where(judged, values, np.float32(np.nan))
    kept = {key: row.content[key] for key in IDENTITY}
    return Row(kept | {"set": f"{VAL} {label}", "labels": label, "images": int(judged.sum())} | _top1(values), values)


def of_corruptions(corrupted: dict[tuple[str, int], Source], counter: Counter, view: View) -> Iterator[Row]:
    """A row for each corruption of which all severities are there, with its error in AlexNet's; if all 15 are, one of their means.

    CE = sum of errors over severities / AlexNet's, mCE its mean over corruptions (Hendrycks and Dietterich 2019, section 4.1). An
    image's value is its mean over severities, or over all 75 parts, since its 75 pictures are no 75 draws.
    """
    done: dict[str, list[Row]] = {}
    for corruption in papers.CORRUPTIONS:
        found = [source for severity in papers.SEVERITIES if (source := corrupted.get((corruption, severity)))]
        parts: dict[str, list[Row]] = {}
        for source in found if len(found) == len(papers.SEVERITIES) else []:
            evaluator = counter.evaluator(source, view)
            for weights, c in counter.count(evaluator).items():
                content = _identity(source.dataset, evaluator, weights) | {"images": c.images, "top1": c.top1}
                parts.setdefault(weights, []).append(Row(content, c.correct.astype(np.float32)))
        for weights, severities in parts.items():
            row = _mean(f"{C} {corruption}", severities)
            row.content["corruption_error"] = (1 - row.content["top1"]) / ALEXNET[corruption]
            done.setdefault(weights, []).append(row)
            yield row
    for each in done.values():
        if len(each) == len(papers.CORRUPTIONS):
            row = _mean(C, each)
            row.content["corruption_error"] = sum(part.content["corruption_error"] for part in each) / len(each)
            yield row


def _mean(name: str, parts: Sequence[Row]) -> Row:
    dataset = "imagenet_c" if name == C else f"imagenet_c/{name.removeprefix(C + ' ')}"
    content = parts[0].content | {"set": name, "dataset": dataset, "images": sum(part.content["images"] for part in parts)}
    content["fingerprint"] = hashlib.sha256("".join(part.content["fingerprint"] for part in parts).encode()).hexdigest()
    values = [part.values for part in parts if part.values is not None]
    if len(values) == len(parts) and len({len(v) for v in values}) == 1:  # an image left out of one part: nothing to pair
        mean = np.mean(values, 0)
        return Row(content | _top1(mean), mean)
    return Row(content | {"top1": float(np.mean([part.content["top1"] for part in parts])), "top1_interval": None}, None)


IDENTITY = ("set", "dataset", "version", "split", "labels", "fingerprint", "image_size", "crop_ratio", "flip", "weights", "classes")


def _identity(name: str, evaluator: Evaluator, weights: str) -> dict[str, Any]:
    """What two rows must share to be of the same images, shown alike; but for the weights."""
    source, pixels = evaluator.source, evaluator.pixels
    shown = (pixels.image_size, pixels.crop_ratio, evaluator.views["flip"], weights, len(source.classes))
    values = (name, source.dataset, source.version, source.split, "its own", source.fingerprint, *shown)
    return dict(zip(IDENTITY, values, strict=True))


def _top1(values: np.ndarray) -> dict[str, Any]:
    counted = values[~np.isnan(values)]
    return {"top1": float(counted.mean(dtype=np.float64)), "top1_interval": bootstrap.interval(counted)}


def write(folder: pathlib.Path, name: str, found: Sequence[Row], counter: Counter, missing: Sequence[str]) -> pathlib.Path:
    """Write folder/suite/NAME.json and .npz ("values_<row>"); returns the JSON's path."""
    path = folder / "suite" / f"{name}.json"
    if runtime.is_main_process():
        content = {"step": counter.loaded.step, "own_view": counter.own._asdict(), "missing": list(missing)}
        content |= {"versions": runtime.versions(), "devices": runtime.devices()}
        write_json(path, content | {"rows": [row.content for row in found]})
        values: dict[str, Any] = {f"values_{i}": row.values for i, row in enumerate(found) if row.values is not None}
        np.savez_compressed(path.with_suffix(".npz"), **values)
    return path


HEADING = (
    f"{'set':32s} {'px':>4s} {'':7s} {'':3s} {'images':>9s} {'top-1':>7s} {'95 % interval':>15s} {'top-5':>7s} {'loss':>7s} "
    f"{'ECE':>6s} {'of half':>7s} {'with T':>6s} {'T':>5s}"
)


def line(row: dict[str, Any]) -> str:
    """One row for the terminal, below `HEADING`."""
    interval = "{:.2%}-{:.2%}".format(*row["top1_interval"]) if row["top1_interval"] else ""
    shown = f"{row['image_size']:4d} {'flipped' if row['flip'] else '':7s} {row['weights']:3s}"
    text = f"{row['set']:32s} {shown} {row['images']:9,d} {row['top1']:7.2%} {interval:>15s}"
    if "top5" in row:
        text += f" {row['top5']:7.2%} {row['loss']:7.4f}"
    if calibration := row.get("calibration"):
        text += f" {calibration['ece']:6.3f}"
        if t := calibration["temperature"]:
            text += f" {t['before']['ece']:7.3f} {t['after']['ece']:6.3f} {t['value']:5.2f}"
    if "corruption_error" in row:
        text += f" {'mCE' if row['set'] == C else 'CE'} {row['corruption_error']:.1%}"
    published = row.get("published_images") or row["images"]
    return text + (f"; {published:,} images are published" if published != row["images"] else "")
