"""EfficientNet B, V2 and Lite against torch, with torchvision's names; Lite0 with Google's weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models, tree
from imagenet_jax.models.efficientnet import Block, Stage


def torch_efficientnet(torch, model):
    """torchvision's EfficientNet with the stages of `model`; where it says so, with TensorFlow's padding, without gates."""
    nn = torch.nn
    act = {"silu": nn.SiLU, "relu6": nn.ReLU6}[model.act.__name__]

    class SameConv(nn.Conv2d):
        def forward(self, x):
            pads = []
            for size in (x.shape[3], x.shape[2]):  # F.pad starts with the last axis
                total = max(0, (-(-size // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - size)
                pads += [total // 2, total - total // 2]
            return super().forward(nn.functional.pad(x, pads))

    def unit(inputs, outputs, kernel=1, stride=1, groups=1, act=act):
        conv, padding = (SameConv, 0) if model.same_padding else (nn.Conv2d, kernel // 2)
        convolution = conv(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=model.bn_epsilon), act())

    class SqueezeExcite(nn.Module):
        def __init__(self, channels, squeezed):
            super().__init__()
            self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

        def forward(self, x):
            return x * self.fc2(nn.functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()

    class Block(nn.Module):
        def __init__(self, inputs, stage, stride):
            super().__init__()
            hidden, width, kernel = inputs * stage.expand, stage.width, stage.kernel
            project = unit(hidden, width, act=nn.Identity)
            if stage.fused:
                parts = (
                    [unit(inputs, hidden, kernel, stride), project] if stage.expand > 1 else [unit(inputs, width, kernel, stride)]
                )
            else:
                parts = [unit(inputs, hidden)] if stage.expand > 1 else []
                parts += [unit(hidden, hidden, kernel, stride, hidden)]
                parts += [SqueezeExcite(hidden, inputs // 4)] if model.se else []
                parts += [project]
            self.block = nn.Sequential(*parts)
            self.residual = stride == 1 and inputs == width

        def forward(self, x):
            return x + self.block(x) if self.residual else self.block(x)

    inputs, parts = model.stem, [unit(3, model.stem, 3, 2)]
    for stage in model.stages:
        blocks = nn.Sequential()
        for i in range(stage.repeats):
            blocks.append(Block(inputs, stage, 1 if i else stage.stride))
            inputs = stage.width
        parts.append(blocks)
    parts.append(unit(inputs, model.widest))
    classifier = nn.Sequential(nn.Dropout(model.dropout), nn.Linear(model.widest, model.num_classes))
    names = {
        "features": nn.Sequential(*parts),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": classifier,
    }
    reference = nn.Sequential()
    for name, module in names.items():
        reference.add_module(name, module)
    return reference.eval()


# Every kind of block, with and without expansion and shortcut, in little.
MBCONV = (Stage(1, 3, 1, 16, 2), Stage(6, 3, 2, 24, 2), Stage(4, 5, 2, 40, 1), Stage(6, 5, 2, 48, 1), Stage(6, 3, 2, 64, 1))
FUSED = (Stage(1, 3, 1, 24, 2, True), Stage(4, 3, 2, 32, 2, True), Stage(4, 3, 2, 48, 2))


@pytest.mark.parametrize(
    ("name", "stages"),
    [("efficientnet_b0", MBCONV), ("efficientnet_b7", MBCONV), ("efficientnet_v2_s", FUSED), ("efficientnet_lite0", MBCONV)],
)
def test_logits_are_torchs(torch, torch_state, drawn, name, stages):
    """Sizes are odd at some stride, where paddings tell themselves apart."""
    model = models.create(name, num_classes=5, stages=stages, widest=96)
    images = np.random.default_rng(1).normal(size=(2, 72, 52, 3)).astype(np.float32)
    variables = drawn(model, images)
    reference = torch_efficientnet(torch, model)
    reference.load_state_dict(torch_state(variables["params"]) | torch_state(variables["batch_stats"]))
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)(variables, images)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "stem", "widths", "repeats", "widest"),  # the reference implementations' rounding
    [
        ("efficientnet_b2", 32, (16, 24, 48, 88, 120, 208, 352), (2, 3, 3, 4, 4, 5, 2), 1408),
        ("efficientnet_b7", 64, (32, 48, 80, 160, 224, 384, 640), (4, 7, 7, 10, 10, 13, 4), 2560),
        ("efficientnet_lite2", 32, (16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1), 1280),
    ],
)
def test_compound_scaling(name, stem, widths, repeats, widest):
    model = models.create(name, num_classes=5)
    assert (model.stem, model.widest) == (stem, widest)
    assert tuple(stage.width for stage in model.stages) == widths
    assert tuple(stage.repeats for stage in model.stages) == repeats


def test_stochastic_depth_grows_with_depth_and_leaves_out_whole_branches(drawn):
    """Of three blocks the first never drops, the second has no shortcut, and the third drops 0.675 x 2/3 = 0.45 of the examples."""
    stages = (Stage(1, 3, 1, 8, 1), Stage(1, 3, 2, 8, 1), Stage(2, 3, 1, 8, 1))
    settings = {"stages": stages, "stem": 8, "widest": 8, "dropout": 0.0, "bn_group": 1}
    images = np.repeat(np.random.default_rng(1).normal(size=(1, 16, 16, 3)), 64, axis=0).astype(np.float32)

    def last_map(rate, **rngs):
        model = models.create("efficientnet_b0", num_classes=2, drop_path=rate, **settings)
        run = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"], method="features", rngs=rngs)[0])
        return np.asarray(run(drawn(model, images))["stride4"]).reshape(64, -1)

    whole = last_map(0.0)[0]  # and asks for no rng
    first, second = np.unique(last_map(0.675, dropout=jax.random.key(0)).round(4), axis=0)
    errors = [np.abs(whole - a - 0.55 * (b - a)).max() for a, b in ((first, second), (second, first))]
    assert min(errors) < 1e-3 < 0.1 < max(errors)


def google_names(stages):
    """(Google's prefix, ours) for each convolution and norm of a Lite: its blocks are counted through, ours a stage each."""
    yield from (("_conv_stem", "features_0_0"), ("_bn0", "features_0_1"), ("_fc", "classifier_1"))
    yield from (("_conv_head", f"features_{len(stages) + 1}_0"), ("_bn1", f"features_{len(stages) + 1}_1"))
    count = itertools.count()
    for number, stage in enumerate(stages, start=1):
        for i in range(stage.repeats):
            parts = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")][stage.expand == 1 :]
            theirs, ours = f"_blocks.{next(count)}", f"features_{number}_{i}"
            for j, pair in enumerate(parts):
                yield from ((f"{theirs}.{name}", f"{ours}/block_{j}_{k}") for k, name in enumerate(pair))


@pytest.mark.slow
def test_lite0_with_googles_weights_gives_the_recorded_maps_and_logits(torch, lite0_weights, shared_data):
    """Recorded from the PyTorch port of Google's network, on eight photographs."""
    model = models.create("efficientnet_lite0", num_classes=1000)
    recorded = np.load(shared_data / "efficientnet_lite0" / "block_outputs.npz")
    state = torch.load(lite0_weights, weights_only=True)
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    theirs = {ours: name for name, ours in google_names(model.stages)}

    def fill(path, shape):
        module, leaf = path.split("/", 1)[1].rsplit("/", 1)
        value = state.pop(f"{theirs[module]}.{leaves[leaf]}").numpy()
        value = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        assert value.shape == shape.shape
        return value

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3))))
    variables = tree.map_with_path(fill, shapes)
    assert {name.split(".")[-1] for name in state} == {"num_batches_tracked"}

    @jax.jit
    def run(variables, images):
        blocks = {"capture_intermediates": lambda module, _: isinstance(module, Block), "mutable": "intermediates"}
        outputs, inner = model.apply(variables, images, train=False, head=True, method="forward", **blocks)
        return outputs, {name: jnp.mean(found["__call__"][0], (1, 2)) for name, found in inner["intermediates"].items()}

    with jax.default_matmul_precision("highest"):
        outputs, means = run(variables, recorded["inputs_nhwc"])
    names = [f"features_{number}_{i}" for number, stage in enumerate(model.stages, start=1) for i in range(stage.repeats)]
    for i, name in enumerate(names):
        np.testing.assert_allclose(means[name], recorded[f"block{i}"], rtol=0, atol=1e-4, err_msg=name)
    for name in ("pooled", "logits"):
        np.testing.assert_allclose(outputs[name], recorded[name], rtol=0, atol=1e-4)
