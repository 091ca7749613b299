"""Whole runs on classes that WordNet orders: semantic softmax learns, and categories get from the evaluation to the page."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from imagenet_jax import build, config, train
from imagenet_jax.data.labels.classes import wnids
from imagenet_jax.errors import UserError
from imagenet_jax.report import write_report

# Two kinds of dog and two of cat, by the colours red and blue; dog and cat are classes too, as in ImageNet-21K.
DOG, CHIHUAHUA, CAT, TABBY, TIGER_CAT = "n02084071", "n02085620", "n02121808", "n02123045", "n02123159"
COLOURS = {
    DOG: (170, 90, 0), CHIHUAHUA: (200, 0, 0), "n02085782": (200, 150, 0),
    CAT: (0, 90, 170), TABBY: (0, 0, 200), TIGER_CAT: (0, 150, 200),
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A plain folder of six classes, 24 training and 6 validation images each, where tiger cats look like tabbies."""
    rng = np.random.default_rng(0)
    place = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 24), ("validation", 6)):
        for wnid, colour in COLOURS.items():
            (place / split / wnid).mkdir(parents=True)
            for i in range(count):
                seen = COLOURS[TABBY] if (split, wnid) == ("validation", TIGER_CAT) else colour
                pixels = rng.integers(0, 55, (20, 20, 3)) + np.array(seen)
                Image.fromarray(pixels.astype(np.uint8)).save(place / split / wnid / f"{i:02d}.png")
    return place


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """36 steps of semantic softmax."""
    c = config.default()
    c.dataset, c.image_size, c.crop_ratio, c.model.name = str(photos), 16, 1.0, "resnet8"
    c.augment = (("flip", {}),)
    c.loss, c.label_smoothing = "semantic_softmax", 0.1
    c.epochs, c.batch_size, c.learning_rate, c.lr_batch = 4.0, 16, 0.05, 16
    c.log_interval, c.eval_interval_epochs = 3, 0.0
    workdir = tmp_path_factory.mktemp("run")
    assert train.train(c, workdir, data_dir=photos, devices=jax.devices()[:1]) == 0
    return workdir


def test_semantic_softmax_learns_what_is_a_kind_of_what(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    told = [r["loss"] for r in records if r["kind"] == "train"]
    assert told[-1] < 0.6 * told[0]
    (path,) = (run / "eval").glob("*.json")
    rows = {row["wnid"]: row for row in json.loads(path.read_text())["hierarchy"]["raw"]["categories"]}
    assert (rows[DOG]["classes"], rows[DOG]["images"]) == (3, 18)
    assert rows[DOG]["f1"] > 0.9
    assert rows[CAT]["f1"] > 0.9
    assert CHIHUAHUA not in rows  # one class is no category


def test_the_page_shows_categories_and_the_worst_classes(run):
    (path,) = (run / "eval").glob("*.json")
    result = json.loads(path.read_text())
    worst = result["worst"]["raw"]
    assert worst[0]["index"] == result["classes"].index(TIGER_CAT)
    assert [w["f1"] for w in worst] == sorted(w["f1"] for w in worst)
    for w in worst:
        assert result["raw"]["per_class"][w["index"]]["images"] == w["images"] == 6
        assert len(w["examples"]) == min(3, sum(o["images"] for o in w["taken_for"]))
        for example in w["examples"]:
            assert example["file_name"].startswith(result["classes"][w["index"]])
            assert example["taken_for"] in [o["index"] for o in w["taken_for"]]
            assert (run / "eval" / example["thumbnail"]).stat().st_size > 100
    page = write_report([run]).read_text()
    assert "carnivore" in page
    assert '<a href="#categories">' in page
    assert "taken for" in page
    assert page.count("<details") == page.count("</details>") > 0


def test_semantic_softmax_needs_classes_of_imagenet():
    with pytest.raises(UserError, match="needs a data set whose classes are ImageNet's"):
        build.loss({"loss": "semantic_softmax", "label_smoothing": 0.0}, ["red", "green"])


def test_semantic_softmax_smooths_within_its_groups_and_the_others_their_targets():
    """Four kinds of dog, and dog: 0.2 of the target lies on the four, none of it on dog."""
    names = [DOG, *wnids()[151:155]]
    semantic = {"loss": "semantic_softmax", "label_smoothing": 0.2}
    assert build.label_smoothing(semantic) == 0
    assert build.label_smoothing(semantic | {"loss": "softmax"}) == 0.2
    gradient = jax.jit(jax.grad(lambda x: build.loss(semantic, names)(x, jnp.eye(5)[1:2]).sum()))(np.zeros((1, 5)))
    weight = 5 / 4
    np.testing.assert_allclose(gradient, [[0, *(weight * (0.25 - t) for t in (0.85, 0.05, 0.05, 0.05))]], atol=1e-6)
