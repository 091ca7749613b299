"""The training step against plain torch: 50 SGD steps from the same weights on the same batches.

This pins the conventions that two correct-looking trainers differ in: what the running variance is, which way BN momentum
counts, where weight decay enters, what Nesterov and smoothing mean, which rate the first step has, where a convolution pads.
The torch side is built from torch.nn.functional and torch.optim.SGD alone, driven by our parameters by name.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models, step, tree
from imagenet_jax.models import resnet
from imagenet_jax.optim import optimizers, schedules
from imagenet_jax.state import TrainState, make_init

BATCH, CLASSES, SMOOTHING, MOMENTUM, DECAY = 16, 10, 0.1, 0.9, 5e-3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NO_DECAY = (r"(^|/)(bias|scale)$",)


def small_basic(**dtypes):
    """Basic blocks and parameter-free shortcuts; the whole batch is one BN group."""
    return models.create("resnet8", width=8, num_classes=CLASSES, **dtypes)


def small_bottleneck(**dtypes):
    """The ImageNet stem, max-pooling and bottlenecks with projections, on odd and even maps; two BN groups."""
    return resnet.ResNet(depths=(1, 1, 1), width=8, num_classes=CLASSES, bn_group=BATCH // 2, **dtypes)


CASES = [(small_basic, 12, True), (small_bottleneck, 24, False)]  # model, image side, nesterov


@pytest.mark.parametrize(("make_model", "side", "nesterov"), CASES)
def test_fifty_steps_match_in_float64(torch, x64, make_model, side, nesterov):
    compare(torch, make_model, side, nesterov, steps=50, dtype="float64", tolerance=1e-6)


@pytest.mark.parametrize(("make_model", "side", "nesterov"), CASES)
def test_five_steps_match_in_float32(torch, make_model, side, nesterov):
    compare(torch, make_model, side, nesterov, steps=5, dtype="float32", tolerance=1e-3)


def compare(torch, make_model, side, nesterov, *, steps, dtype, tolerance):
    """Train both; losses of every step, final parameters and final BN statistics must agree to `tolerance`."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (steps, BATCH)).astype(np.int32)
    images = rng.integers(0, 256, (steps, BATCH, side, side, 3)).astype(np.uint8)
    schedule = schedules.make("cosine", peak=0.05, total_steps=steps, warmup_steps=min(5, steps // 2))
    model = make_model(dtype=dtype, param_dtype=dtype)
    optimizer = optimizers.make(
        "sgd", weight_decay=DECAY, no_weight_decay=NO_DECAY, clip_norm=0.0, momentum=MOMENTUM, nesterov=nesterov
    )
    state = initial_state(rng, model, optimizer, side)
    collections = {"params": state.params, "batch_stats": state.batch_stats}
    initial = {path: leaf.copy() for path, leaf in tree.paths(collections)}

    ours, losses = train_jax(model, optimizer, schedule, state, images, labels)
    rates = [float(schedule(i)) for i in range(steps)]
    reference = TorchNet(torch, initial, group=model.bn_group)
    torch_losses = reference.train(images, labels, rates, nesterov)

    assert {loss.dtype.name for loss in losses} == {dtype}
    np.testing.assert_allclose(losses, torch_losses, rtol=0, atol=tolerance)
    assert np.ptp(torch_losses) > 0.1  # something was learnt: equal constants would prove nothing
    for collection in ("params", "batch_stats"):
        for path, leaf in tree.paths(getattr(ours, collection)):
            name = f"{collection}/{path}"
            assert leaf.dtype.name == dtype
            assert not np.array_equal(leaf, initial[name]), f"{name} has not moved"
            np.testing.assert_allclose(leaf, reference.leaf(name), rtol=0, atol=tolerance, err_msg=name)


def initial_state(rng, model, optimizer, side) -> TrainState:
    """Host arrays drawn by numpy. No scale is 1, no bias or mean 0, no variance 1: each must be used, and used rightly."""

    def draw(path, leaf):
        if path.endswith("kernel"):
            value = rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape)
        elif path.endswith(("scale", "var")):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = rng.normal(0, 0.1, leaf.shape)
        return value.astype(leaf.dtype)

    image = jnp.zeros((2, side, side, 3), model.dtype)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    variables = tree.map_with_path(draw, shapes)
    return make_init(lambda _: variables, optimizer, with_ema=False)(jax.random.key(0))


def train_jax(model, optimizer, schedule, state, images, labels) -> tuple[TrainState, list[np.ndarray]]:
    """The project's own step, jitted as the loop does."""
    train_step = step.make_train_step(model, optimizer, schedule, mean=MEAN, std=STD, label_smoothing=SMOOTHING)
    jitted = jax.jit(train_step, donate_argnums=0)
    losses = []
    for image, label in zip(images, labels, strict=True):
        state, sums = jitted(state, {"image": image, "label": label})
        losses.append(np.asarray(sums["loss"]) / BATCH)
        assert int(sums["nonfinite"]) == 0
    return jax.device_get(state), losses


class TorchNet:
    """A residual network in torch functions, whose shape follows from the names of the Flax leaves it is given."""

    def __init__(self, torch, leaves: dict[str, np.ndarray], group: int):
        self.torch, self.functional, self.group = torch, torch.nn.functional, group
        self.leaves = {name: torch.tensor(to_torch(leaf)) for name, leaf in leaves.items()}
        self.params = {n.removeprefix("params/"): t.requires_grad_() for n, t in self.leaves.items() if "params/" in n}
        self.blocks = sorted({name.split("/")[0] for name in self.params if name.startswith("layer")})
        self.imagenet_stem = self.params["conv1/kernel"].shape[-1] == 7

    def leaf(self, name: str) -> np.ndarray:
        """A leaf in Flax's layout."""
        array = self.leaves[name].detach().numpy()
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T

    def train(self, images, labels, rates, nesterov) -> list[float]:
        """SGD on every batch; the loss of each, before its update."""
        kernels = [p for name, p in self.params.items() if name.endswith("kernel")]
        others = [p for name, p in self.params.items() if not name.endswith("kernel")]
        groups = [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        optimizer = self.torch.optim.SGD(groups, lr=rates[0], momentum=MOMENTUM, nesterov=nesterov)
        losses = []
        for image, label, rate in zip(images, labels, rates, strict=True):
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
            optimizer.zero_grad()
            target = self.torch.tensor(label, dtype=self.torch.int64)
            loss = self.functional.cross_entropy(self.logits(image), target, label_smoothing=SMOOTHING)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def logits(self, image: np.ndarray):
        normalised = (image.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
        x = self.torch.tensor(normalised.transpose(0, 3, 1, 2)).to(self.params["conv1/kernel"].dtype)
        x = self.bn(self.conv(x, "conv1", 2 if self.imagenet_stem else 1), "bn1").relu()
        if self.imagenet_stem:
            x = self.functional.max_pool2d(x, 3, 2, 1)
        for name in self.blocks:
            x = self.block(x, name, stride=2 if name.endswith("_0") and not name.startswith("layer1") else 1)
        return self.functional.linear(x.mean((2, 3)), self.params["fc/kernel"], self.params["fc/bias"])

    def block(self, x, name: str, stride: int):
        bottleneck = f"{name}/conv3/kernel" in self.params
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        y = x
        for i, s in enumerate(strides, start=1):
            y = self.bn(self.conv(y, f"{name}/conv{i}", s), f"{name}/bn{i}")
            y = y.relu() if i < len(strides) else y
        if f"{name}/downsample_conv/kernel" in self.params:
            x = self.bn(self.conv(x, f"{name}/downsample_conv", stride), f"{name}/downsample_bn")
        elif x.shape != y.shape:
            x = self.functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return (x + y).relu()

    def conv(self, x, name: str, stride: int):
        kernel = self.params[f"{name}/kernel"]
        return self.functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def bn(self, x, name: str):
        """torch's batch_norm on each group; the running statistics become the mean of what each group would leave."""
        mean, var = (self.leaves[f"batch_stats/{name}/{s}"] for s in ("mean", "var"))
        scale, bias = (self.params[f"{name}/{p}"] for p in ("scale", "bias"))
        parts = x.split(self.group or len(x))
        left = [(mean.clone(), var.clone()) for _ in parts]
        out = [
            self.functional.batch_norm(part, m, v, scale, bias, training=True, momentum=0.1, eps=1e-5)
            for part, (m, v) in zip(parts, left, strict=True)
        ]
        mean.copy_(sum(m for m, _ in left) / len(parts))
        var.copy_(sum(v for _, v in left) / len(parts))
        return self.torch.cat(out)


def to_torch(leaf: np.ndarray) -> np.ndarray:
    """Flax's (h, w, in, out) and (in, out) in torch's order; vectors as they are."""
    if leaf.ndim == 4:
        return np.ascontiguousarray(leaf.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(leaf.T) if leaf.ndim == 2 else leaf.copy()
