"""The same numbers on 1, 2 and 8 devices: what a run computes follows from its config alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import build, sharding
from imagenet_jax import config as configs
from imagenet_jax import evaluate as evaluation
from imagenet_jax import step as steps
from imagenet_jax.data import decode, loader
from imagenet_jax.data.sources import open_source
from imagenet_jax.plan import Plan

CONFIG = configs.plain(configs.default()) | {
    "model": {"name": "resnet8", "dtype": "float32", "param_dtype": "float32", "settings": {}},
    "image_size": 8,
    "bn_group": 8,
    "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    "weight_decay": 1e-3,
    "no_weight_decay": [r"(^|/)(bias|scale)$"],
    "clip_norm": 1.0,
    "agc": 0.0,
    "learning_rate": 0.1,
    "batch_size": 64,
    "epochs": 50.0,
    "warmup_epochs": 5.0,
    "lr_scaling": "none",
    "lr_batch": 64,
    "schedule": "cosine",
    "ema_decay": 0.9,
    "eval_interval_epochs": 0,
}


def losses(devices: int, count: int, dtype: str, group: int, **changes: float) -> np.ndarray:
    """Losses of the first `count` steps on `devices` devices, each step another batch of 64 noise images of 8 x 8."""
    config = {**CONFIG, **changes, "bn_group": group, "model": {**CONFIG["model"], "dtype": dtype, "param_dtype": dtype}}
    mesh = sharding.make_mesh(jax.devices()[:devices])
    place, split = sharding.replicated(mesh), sharding.batched(mesh)
    model = build.model(config, 10)
    schedule, _ = build.schedule(config, Plan(config, 64))
    step = jax.jit(
        steps.make_train_step(
            model, build.optimizer(config), schedule, mean=(0.5,) * 3, std=(0.5,) * 3, label_smoothing=0.1, ema_decay=0.9,
            mixing=build.mixing(config),
        ),
        donate_argnums=0, in_shardings=(place, split), out_shardings=(place, place),
    )  # fmt: skip
    state = jax.jit(build.state_init(model, config), out_shardings=place)(jax.random.key(0))
    out = []
    for i in range(count):
        rng = np.random.default_rng(i)
        label = rng.integers(0, 10, 64)
        image = rng.integers(0, 128, (64, 8, 8, 3)) + label[:, None, None, None] * 12
        batch = {"image": image.astype(np.uint8), "label": label.astype(np.int32)}
        state, sums = step(state, sharding.put_batch(mesh, batch))
        out.append(sums["loss"] / sums["images"])
    assert jax.tree.leaves(state.params)[0].dtype == jnp.dtype(dtype)
    return np.asarray(jax.device_get(out), np.float64)


@pytest.mark.parametrize("group", [8, 0, pytest.param(32, marks=pytest.mark.slow)])  # in a device; the whole batch; over devices
def test_losses_of_50_steps_in_float64(x64, group):
    one = losses(1, 50, "float64", group)
    assert one[-10:].mean() < one[:10].mean() - 0.5  # it learns, so differences would grow
    for devices in (2, 8):
        np.testing.assert_allclose(losses(devices, 50, "float64", group), one, rtol=0, atol=1e-9)


def test_losses_of_5_steps_in_float32():
    one = losses(1, 5, "float32", 8)
    for devices in (2, 8):
        np.testing.assert_allclose(losses(devices, 5, "float32", 8), one, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_losses_of_5_mixed_steps(x64):
    mixed = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}
    one = losses(1, 5, "float64", 8, **mixed)
    np.testing.assert_allclose(losses(8, 5, "float64", 8, **mixed), one, rtol=0, atol=1e-6)  # bytes are mixed in float32
    assert np.abs(losses(1, 5, "float64", 8) - one).max() > 0.01


def test_the_group_decides_not_the_devices(x64):
    """The test above could not fail if the group made no difference."""
    assert np.abs(losses(2, 5, "float64", 8) - losses(2, 5, "float64", 32)).max() > 1e-4


@pytest.fixture(scope="module")
def evaluated(tiny_data):
    """Counts on the 21 validation images, by (devices, batch size)."""
    source = open_source(tiny_data, "tiny", "validation")
    pixels = loader.Pixels(decode.engine("opencv"), 16, 1.0, True)
    model = build.model(CONFIG, 4)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 16, 16, 3)), train=False)

    def count(devices: int, batch_size: int) -> evaluation.Counts:
        mesh = sharding.make_mesh(jax.devices()[:devices])
        view = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        evaluator = evaluation.Evaluator(model, source, pixels, mesh, batch_size=batch_size, **view)
        return evaluator.count({"raw": sharding.replicate(mesh, variables)})["raw"]

    return count


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 1), (1, 7), (2, 8), (8, 8), (8, 64)])
def test_evaluation_counts_every_image_once_on_any_devices_and_batch(evaluated, devices, batch_size):
    reference, other = evaluated(1, 21), evaluated(devices, batch_size)
    assert other.images == 21
    assert (other.top1, other.top5) == (reference.top1, reference.top5)
    np.testing.assert_array_equal(other.confusion, reference.confusion)
    assert other.confusion.sum() == 21
    assert other.loss == pytest.approx(reference.loss, abs=1e-6)
