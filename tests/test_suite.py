"""`evaluate --suite=paper` on tiny sets of the published shapes, each number against counting by another way."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from imagenet_jax import cli, evaluate, infer, models, prepare, sharding, suite
from imagenet_jax.data.augmentation.augment import central
from imagenet_jax.data.labels import papers, relabels
from imagenet_jax.data.labels.classes import readable, wnids
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.sources import open_source
from imagenet_jax.errors import UserError
from imagenet_jax.pretrained import names, weights

WNIDS = wnids()
A = [6, 13, 400]  # classes of the tiny ImageNet-A


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of a small ResNet of ImageNet's classes; its answers are mostly among twenty of them, so that some are right."""
    model = models.create("resnet8", num_classes=1000)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.abs(rng.standard_normal(x.shape)).astype(x.dtype), names.variables_like(model))
    variables["params"]["fc"]["kernel"] = rng.standard_normal((64, 1000)).astype(np.float32) * 1e-3
    variables["params"]["fc"]["bias"] = np.where(np.arange(1000) < 20, 1.0, 0.0).astype(np.float32)
    p = weights.Preprocessing(32, 0.875, "bicubic", (0.5,) * 3, (0.25,) * 3)
    path = tmp_path_factory.mktemp("weights")
    weights.save(path, weights.Weights(model, variables, "resnet8", {}, tuple(readable(WNIDS)), p, {"file": "none"}))
    return path


def tree(root, classes, rng, side=40):
    """A picture in each class folder; root."""
    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side + 8, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def two():
    """As if ImageNet-C had two corruptions: ten sets to prepare instead of 75."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(papers, "CORRUPTIONS", ("snow", "jpeg_compression"))
        yield papers.CORRUPTIONS


@pytest.fixture(scope="module")
def data_dir(two, tmp_path_factory):
    """ImageNet-V2, A, and of C the two corruptions that `two` leaves, as their authors publish them; no validation split."""
    rng, root, out = np.random.default_rng(1), tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("data")
    tree(root / "v2", [str(k) for k in range(0, 26, 2)], rng)
    tree(root / "a", [WNIDS[k] for k in A * 3], rng)
    for corruption in papers.CORRUPTIONS:
        for severity in papers.SEVERITIES:
            tree(root / "c" / corruption / str(severity), [WNIDS[k] for k in range(7)], rng, side=32)
    for name, source in (("imagenet_v2/matched-frequency", "v2"), ("imagenet_a", "a"), ("imagenet_c", "c")):
        assert prepare.main([name, f"--source={root / source}", f"--data_dir={out}", "--jobs=1"]) == cli.FINISHED
    return out


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    """A plain folder with 11 validation images under their official names, of classes 0 to 4."""
    root, rng = tmp_path_factory.mktemp("val"), np.random.default_rng(2)
    for wnid in WNIDS:
        (root / "train" / wnid).mkdir(parents=True)
    for i in range(11):
        place = root / "validation" / WNIDS[i % 5]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(place / f"ILSVRC2012_val_{i + 1:08d}.JPEG", "PNG")
    return root


def by_hand(folder, source, *, crop_ratio=0.875, size=32, flip=False):
    """Logits (n, 1000) and labels of every image, one at a time."""
    loaded = infer.load(folder, sharding.make_mesh(jax.devices()[:1]))
    apply = jax.jit(lambda x: loaded.model.apply(loaded.weights["raw"], (x / 255 - 0.5) / 0.25))
    logits = []
    for i in range(len(source)):
        out = np.empty((size, size, 3), np.uint8)
        decode.render(source.read(i).image, lambda h, w: central(h, w, size, crop_ratio), loaded.pixels.engine, True, out)
        z = apply(out[None])
        logits.append(np.asarray((z + apply(out[None, :, ::-1])) / 2 if flip else z)[0])
    return np.array(logits), np.array([source.read(i).label for i in range(len(source))])


@pytest.fixture(scope="module")
def outcome(folder, data_dir, val, tmp_path_factory):
    """The suite's exit code, its JSON and its arrays; of other labels, only ReaL's are there."""
    place = data_dir / "downloads" / "manual" / relabels.LABELS["ReaL"].file
    place.parent.mkdir(parents=True)
    real = [[], *[[k % 7, (k + 1) % 20] for k in range(10)]]
    place.write_text(json.dumps(real))
    code = evaluate.main([f"--weights={folder}", "--suite=paper", f"--dataset={val}", f"--data_dir={data_dir}", "--batch_size=8"])
    content = json.loads((folder / "suite" / "paper.json").read_text())
    return code, {row["set"]: row for row in content["rows"]}, content, np.load(folder / "suite" / "paper.npz"), real


def test_what_is_there_is_counted_and_what_is_not_is_named_with_a_command(outcome, data_dir):
    code, rows, content, values, _ = outcome
    assert code == cli.PARTLY
    corruptions = [f"ImageNet-C {c}" for c in papers.CORRUPTIONS]
    assert list(rows) == ["ImageNet", "ImageNet ReaL", "ImageNet-V2", "ImageNet-A", *corruptions, "ImageNet-C"]
    assert (
        f"ImageNet-R: python -m imagenet_jax.prepare imagenet_r --source=imagenet-r.tar --data_dir={data_dir}" in content["missing"]
    )
    assert len(content["missing"]) == 5  # two of V2, R, Sketch, multilabel
    assert "curl" in content["missing"][-1]
    for i, row in enumerate(content["rows"]):
        assert np.nanmean(values[f"values_{i}"], dtype=float) == pytest.approx(row["top1"])
        assert row["top1_interval"][0] <= row["top1"] <= row["top1_interval"][1]


def test_a_is_counted_among_its_own_classes(outcome, folder, data_dir):
    logits, labels = by_hand(folder, open_source(data_dir, "imagenet_a", "test"))
    row = outcome[1]["ImageNet-A"]
    assert row["top1"] == pytest.approx(np.mean(logits[:, A].argmax(1) == labels))
    assert row["top1"] != pytest.approx(np.mean(logits.argmax(1) == np.array(A)[labels]))
    assert (row["images"], row["published_images"], row["classes"]) == (9, 7500, 3)


def test_v2_and_the_validation_split(outcome, folder, data_dir, val):
    for name, source in (
        ("ImageNet-V2", open_source(data_dir, "imagenet_v2/matched-frequency", "test")),
        ("ImageNet", open_source(data_dir, str(val), "validation")),
    ):
        logits, labels = by_hand(folder, source)
        assert outcome[1][name]["top1"] == pytest.approx(np.mean(logits.argmax(1) == labels))
        assert outcome[1][name]["images"] == len(labels)


def test_real_leaves_images_without_labels_out_and_takes_any_of_a_set(outcome, folder, data_dir, val):
    source = open_source(data_dir, str(val), "validation")
    predicted = by_hand(folder, source)[0].argmax(1)
    right = {f"ILSVRC2012_val_{i:08d}.JPEG": labels for i, labels in enumerate(outcome[4], 1)}
    of_each = [right[source.read(i).name.split("/")[-1]] for i in range(len(source))]
    row = outcome[1]["ImageNet ReaL"]
    assert row["images"] == 10
    assert row["top1"] == pytest.approx(np.mean([p in labels for p, labels in zip(predicted, of_each, strict=True) if labels]))


def test_c_is_not_cropped_and_its_error_is_in_alexnets(outcome, folder, data_dir):
    errors = {}
    for corruption in papers.CORRUPTIONS:
        parts = [
            by_hand(folder, open_source(data_dir, f"imagenet_c/{corruption}_{s}", "test"), crop_ratio=1.0) for s in range(1, 6)
        ]
        errors[corruption] = np.mean([np.mean(logits.argmax(1) != labels) for logits, labels in parts])
        row = outcome[1][f"ImageNet-C {corruption}"]
        assert row["top1"] == pytest.approx(1 - errors[corruption])
        assert row["corruption_error"] == pytest.approx(errors[corruption] / suite.ALEXNET[corruption])
        assert (row["images"], row["crop_ratio"]) == (35, 1.0)
    every = [outcome[1][f"ImageNet-C {c}"] for c in papers.CORRUPTIONS]
    assert outcome[1]["ImageNet-C"]["corruption_error"] == pytest.approx(np.mean([row["corruption_error"] for row in every]))
    assert outcome[1]["ImageNet-C"]["images"] == 70


def test_by_class_is_the_mean_of_the_classes_means():
    """Shankar et al.'s rule: class 0 has three judged images, one right; class 1 has one, right; class 2 has none."""
    from imagenet_jax.evaluator import Counts

    logits = np.eye(4, dtype=np.float32)[[0, 2, 2, 1, 3]]
    counts = Counts(5, 0.0, 0.0, 0.0, np.zeros((4, 4)), np.array([0, 0, 0, 1, 2]), logits)
    row = suite.Row(dict.fromkeys(suite.IDENTITY), None)
    answers = [frozenset({0}), frozenset({0}), frozenset(), frozenset({1, 0}), None]
    got = suite.relabelled(row, counts, "multilabel", answers)
    assert got.content["images"] == 4
    assert got.content["top1"] == pytest.approx((1 / 3 + 1) / 2)
    assert np.isnan(got.values[4])


def test_a_sweep_has_a_row_for_each_size_and_mirrored_view(folder, val, capsys):
    flags = [f"--weights={folder}", f"--dataset={val}", "--image_size=24", "--flip"]
    assert evaluate.main(flags) == cli.FINISHED
    assert capsys.readouterr().out.count("flipped raw") == 1
    (path,) = (path for path in (folder / "suite").glob("*.json") if path.stem != "paper")
    rows = json.loads(path.read_text())["rows"]
    assert [(row["image_size"], row["flip"]) for row in rows] == [(24, False), (24, True)]
    source = open_source(folder, str(val), "validation")
    for row in rows:
        logits, labels = by_hand(folder, source, size=row["image_size"], flip=row["flip"])
        assert row["top1"] == pytest.approx(np.mean(logits.argmax(1) == labels))


def test_sizes_that_the_model_does_not_take(folder, val, tmp_path):
    model = models.create("mixer_s_16", num_classes=1000, depth=1)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), names.variables_like(model))
    p = weights.Preprocessing(224, 0.875, "bicubic", (0.5,) * 3, (0.25,) * 3)
    content = weights.Weights(model, variables, "mixer_s_16", {"depth": 1}, tuple(readable(WNIDS)), p, {"file": "none"})
    weights.save(tmp_path, content)
    with pytest.raises(UserError, match="images of 256 x 256 pixels have 256"):
        evaluate.main([f"--weights={tmp_path}", f"--dataset={val}", "--image_size=256"])


def test_sets_that_do_not_fit(folder, val, tmp_path):
    with pytest.raises(UserError, match=r"Nothing of this suite is prepared"):
        evaluate.main([f"--weights={folder}", "--suite=paper", f"--data_dir={tmp_path}"])
    source = open_source(tmp_path, str(val), "validation")
    as_tfds_has_it = dataclasses.replace(source, dataset="imagenet_a")
    with pytest.raises(UserError, match="lists 1,000 classes and shows 200"):
        suite.columns_of(as_tfds_has_it, source.classes)
    with pytest.raises(UserError, match="not those that the model"):
        suite.columns_of(source, source.classes[::-1])  # the same, in another order
