"""A data set of 24 small JPEGs."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from imagenet_jax.data.preparing.prepare import prepare_folder


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A data directory with `jpegs`: 24 training and 4 validation images of smooth noise, 64 x 48, in two classes."""
    rng = np.random.default_rng(0)
    trees, data_dir = tmp_path_factory.mktemp("jpegs"), tmp_path_factory.mktemp("data")
    for split, count in (("train", 24), ("validation", 4)):
        for i in range(count):
            path = trees / split / "ab"[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((64, 48), Image.Resampling.BICUBIC).save(path)
    prepare_folder(name="jpegs", data_dir=data_dir, train=trees / "train", validation=trees / "validation")
    return data_dir
