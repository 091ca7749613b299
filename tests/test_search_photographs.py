"""Search by EfficientNet-Lite0's real weights among 545 ImageNet photographs, one a class, named by their class."""

import io

import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from imagenet_jax import embed
from imagenet_jax.data.labels import hierarchy
from imagenet_jax.embedder import Embedder
from imagenet_jax.retrieval import exact, words
from imagenet_jax.retrieval.store import Index
from imagenet_jax.sharding import make_mesh

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def index(lite0, photographs, tmp_path_factory):
    place = tmp_path_factory.mktemp("photographs")
    (place / "photos").mkdir()
    for wnid, data in photographs.items():
        (place / "photos" / f"{wnid}.jpg").write_bytes(data)
    assert embed.main([f"--weights={lite0}", f"--folder={place / 'photos'}", f"--out={place / 'index'}"]) == 0
    return Index(place / "index")


@pytest.fixture(scope="module")
def truth(index):
    """The wnid of each row."""
    return [item["name"].removesuffix(".jpg") for item in index.describe(range(len(index)))]


def test_words_find_what_is_of_the_kind(index, truth):
    """Mean over all categories of 5 to 500 classes of which there is a picture: average precision of all 545, ranked."""
    tree, precisions = hierarchy.imagenet1k(), []
    ((_, predictions),) = index.predictions()
    for key in tree.synsets:
        sense = words.sense_of(key, index.classes)
        right = np.array([tree.is_a(wnid, key) for wnid in truth])
        if 5 <= len(sense.classes) <= 500 and right.any():
            ranked = right[np.argsort(-words.mass(predictions, sense.classes, 1000), kind="stable")]
            precisions.append((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())
    print(f"mAP {np.mean(precisions):.4f}, least {min(precisions):.4f}, {len(precisions)} categories")  # 0.977, 0.806, 170
    assert len(precisions) > 150
    assert np.mean(precisions) >= 0.95


def test_cropped_and_mirrored_pictures_find_their_original(index, truth, photographs, lite0):
    """The central 70 % of each side, mirrored and encoded anew."""
    embedder, chosen = Embedder(lite0, make_mesh(jax.devices()[:1])), truth[:: len(truth) // 100][:100]

    def changed(i: int) -> bytes:
        with Image.open(io.BytesIO(photographs[chosen[i]])) as image:
            w, h = image.size
            box = (round(0.15 * w), round(0.15 * h), round(0.85 * w), round(0.85 * h))
            buffer = io.BytesIO()
            ImageOps.mirror(image.convert("RGB").crop(box)).save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    batches = list(embedder.stream(range(100), changed, 20))
    queries = np.concatenate([batch.vectors for batch in batches])
    first = exact.nearest(index.blocks(), queries, 1).rows[:, 0]
    right = sum(truth[row] == wnid for row, wnid in zip(first, chosen, strict=True))
    print(f"{right} of 100 find their original first")
    assert right >= 99
