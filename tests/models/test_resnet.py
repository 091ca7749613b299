"""The ImageNet ResNets and what is made of them: names, settings, and torch's logits. (Counts: test_zoo.py.)"""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models, tree
from imagenet_jax.errors import UserError
from imagenet_jax.models import pooling


def shapes(model, side=64, channels=3, method=None):
    """(variables, result) of the model as shapes, without computing."""
    image = jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    return variables, jax.eval_shape(lambda v, x: model.apply(v, x, method=method), variables, image)


def test_xla_counts_the_same_work():
    """XLA's own count leaves out what falls on the padding, 7 % here, and has the elementwise work besides."""
    model = models.create("resnet18", num_classes=1000)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    analysis = jax.jit(model.apply).lower(variables, image).cost_analysis()
    assert analysis["flops"] == pytest.approx(2 * models.cost(model).multiply_adds, rel=0.1)


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet50", 2048)])
@pytest.mark.parametrize(("side", "channels"), [(64, 3), (96, 1)])
def test_features_are_maps_at_their_strides_and_the_pooled_vector(name, width, side, channels):
    variables, features = shapes(models.create(name, num_classes=7), side, channels, "features")
    assert {name: f.shape for name, f in features.items()} == {
        "stride4": (2, side // 4, side // 4, width // 8),
        "stride8": (2, side // 8, side // 8, width // 4),
        "stride16": (2, side // 16, side // 16, width // 2),
        "stride32": (2, side // 32, side // 32, width),
        "pooled": (2, width),
    }
    assert variables["params"]["fc"]["kernel"].shape == (width, 7)


def test_names_are_stable():
    """Checkpoints and the weight conversion are written in these names."""
    variables, _ = shapes(models.create("resnet50", num_classes=10))
    params, stats = ([path for path, _ in tree.paths(variables[c])] for c in ("params", "batch_stats"))
    assert len(params) == 53 + 2 * 53 + 2
    assert len(stats) == 2 * 53
    bn = ["bias", "scale"]
    block = [f"bn{i}/{p}" for i in (1, 2, 3) for p in bn] + [f"conv{i}/kernel" for i in (1, 2, 3)]
    downsample = [f"downsample_bn/{p}" for p in bn] + ["downsample_conv/kernel"]
    assert [p for p in params if p.startswith("layer1_0/")] == [f"layer1_0/{p}" for p in block + downsample]
    assert [p for p in params if p.startswith("layer4_2/")] == [f"layer4_2/{p}" for p in block]
    outside = ["bn1/bias", "bn1/scale", "conv1/kernel", "fc/bias", "fc/kernel"]
    assert sorted(p for p in params if not p.startswith("layer")) == outside
    assert [p for p in stats if not p.startswith("layer")] == ["bn1/mean", "bn1/var"]
    assert sorted({p.split("/")[0] for p in params if p.startswith("layer")}) == [
        f"layer{stage}_{i}" for stage, depth in zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True) for i in range(depth)
    ]


def test_the_stride_of_a_bottleneck_moves_to_its_first_convolution():
    """v1, the paper's, has the same parameters and less work: 3.8 G."""
    ours, v1 = (models.create("resnet50", num_classes=1000, stride_on_1x1=v1) for v1 in (False, True))
    assert models.cost(ours).parameters == models.cost(v1).parameters
    assert models.cost(v1).multiply_adds / 1e9 == pytest.approx(3.8, abs=0.1)


def torch_block(torch, inputs, width, inner, *, stride, groups, variant_d):
    """A bottleneck by its description, with torchvision's names (timm's, of a ResNet-D)."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
            self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
            self.bn2 = nn.BatchNorm2d(inner)
            self.conv3, self.bn3 = nn.Conv2d(inner, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            self.downsample = nn.Identity()
            if stride > 1 or inputs != 4 * width:
                pool = [nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()]
                projection = nn.Conv2d(inputs, 4 * width, 1, 1 if variant_d else stride, bias=False)
                self.downsample = nn.Sequential(*(pool if variant_d else []), projection, nn.BatchNorm2d(4 * width))

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
            return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()

    return Block()


def torch_resnet(torch, model):
    nn, width = torch.nn, model.width
    conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    if model.variant_d:
        half = width // 2
        first, second = nn.Conv2d(3, half, 3, 2, 1, bias=False), nn.Conv2d(half, half, 3, 1, 1, bias=False)
        last = nn.Conv2d(half, width, 3, 1, 1, bias=False)
        conv1 = nn.Sequential(first, nn.BatchNorm2d(half), nn.ReLU(), second, nn.BatchNorm2d(half), nn.ReLU(), last)
    parts = {"conv1": conv1, "bn1": nn.BatchNorm2d(width), "relu": nn.ReLU(), "maxpool": nn.MaxPool2d(3, 2, 1)}
    inputs = width
    for stage, depth in enumerate(model.depths):
        wide = width * 2**stage
        inner = wide * model.group_width // 64 * model.groups
        blocks = []
        for i in range(depth):
            settings = {"stride": 2 if stage and not i else 1, "groups": model.groups, "variant_d": model.variant_d}
            blocks.append(torch_block(torch, inputs, wide, inner, **settings))
            inputs = 4 * wide
        parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(inputs, 5)}
    return nn.Sequential(OrderedDict(parts)).eval()


@pytest.mark.parametrize("name", ["resnet50", "resnet50d", "resnext50_32x4d", "wide_resnet50_2"])
def test_logits_are_torchs(torch, torch_state, drawn, name):
    """72 pixels: the maps are 18, 9 and 5, so that ResNet-D's poolings see an odd size."""
    settings = {"groups": 4, "group_width": 16} if name.startswith("resnext") else {}
    model = models.create(name, num_classes=5, depths=(1, 2, 1), width=16, **settings)
    images = np.random.default_rng(1).normal(size=(2, 72, 104, 3)).astype(np.float32)
    variables = drawn(model, images)
    shift = 1 if model.variant_d else 0  # the pooling is the first part of the shortcut
    renames = [("downsample_conv", f"downsample.{shift}"), ("downsample_bn", f"downsample.{shift + 1}")]
    reference = torch_resnet(torch, model)
    reference.load_state_dict(torch_state(variables["params"], renames) | torch_state(variables["batch_stats"], renames))
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)(variables, images)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_groups_are_for_bottlenecks():
    with pytest.raises(UserError, match=r"groups=32.*resnet50"):
        shapes(models.create("resnet18", num_classes=4, groups=32, group_width=4))


def test_zero_init_makes_every_block_start_as_its_shortcut():
    model = models.create("resnet18", num_classes=4, depths=(2, 2), width=8, zero_init_last_bn=True)
    x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    zero = [path for path, leaf in tree.paths(variables["params"]) if path.endswith("scale") and not leaf.any()]
    assert zero == [f"layer{s}_{i}/bn2/scale" for s in (1, 2) for i in (0, 1)]
    run = jax.jit(lambda variables: model.apply(variables, x, method="features"))
    features, params = run(variables), variables["params"]
    shuffled = {**params, "layer1_1": jax.tree.map(lambda p: p[..., ::-1], params["layer1_1"])}
    other = run({**variables, "params": shuffled})
    assert not np.array_equal(params["layer1_1"]["conv1"]["kernel"], shuffled["layer1_1"]["conv1"]["kernel"])
    np.testing.assert_array_equal(features["stride4"], other["stride4"])


def test_max_pool_padding_is_a_setting():
    x = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    torchs, same = (models.create("resnet18", num_classes=4, depths=(1,), max_pool_padding=p) for p in ([1, 1], [0, 1]))
    a, b = (
        jax.jit(lambda x, m=m: m.apply(torchs.init(jax.random.key(0), x), x, method="features")["stride4"])(x)
        for m in (torchs, same)
    )
    assert a.shape == b.shape
    assert jnp.max(jnp.abs(a - b)) > 0.01


@pytest.mark.parametrize(("dtype", "wide"), [("bfloat16", "float32"), ("float32", "float32")])
def test_maps_have_the_compute_dtype_and_logits_at_least_float32(dtype, wide):
    variables, features = shapes(models.create("resnet18", num_classes=4, dtype=dtype), method="features")
    _, logits = shapes(models.create("resnet18", num_classes=4, dtype=dtype))
    assert {f.dtype.name for name, f in features.items() if name != "pooled"} == {dtype}
    assert features["pooled"].dtype == logits.dtype == jnp.dtype(wide)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}


def test_float64_all_through(x64):
    model = models.create("resnet18", num_classes=4, dtype=jnp.float64, param_dtype=jnp.float64)
    variables, logits = shapes(model)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((variables, logits))} == {"float64"}


def test_blur_pool_filters_what_strided_convolutions_see(torch):
    """FFCV's BlurPoolConv2d: [1 2 1] x [1 2 1] / 16 on every channel, zeros around, then the convolution. The stem has none."""
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 5)).astype(np.float32)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])[None, None].repeat(5, 1, 1, 1) / 16
    theirs = torch.nn.functional.conv2d(torch.tensor(x).permute(0, 3, 1, 2), kernel, padding=1, groups=5).permute(0, 2, 3, 1)
    np.testing.assert_allclose(pooling.blur(jnp.asarray(x)), theirs, atol=1e-6)

    small = {"num_classes": 3, "depths": (1, 1), "width": 4}
    plain, blurred = (models.create("resnet50", **small, blur_pool=b) for b in (False, True))
    images = jnp.asarray(np.random.default_rng(1).normal(size=(1, 32, 32, 3)), jnp.float32)
    variables = plain.init(jax.random.key(0), images)
    before, after = (model.apply(variables, images, method="features") for model in (plain, blurred))
    np.testing.assert_array_equal(before["stride4"], after["stride4"])
    assert not np.allclose(before["stride8"], after["stride8"], atol=1e-3)


def test_stochastic_depth_drops_branches_in_training_alone():
    """At a rate of almost 1 the last block is its shortcut; the first of the two has rate 0."""
    images = jnp.asarray(np.random.default_rng(1).normal(size=(4, 32, 32, 3)), jnp.float32)
    model = models.create("resnet18", num_classes=3, depths=(1, 1), width=4, drop_path=0.999)
    variables = model.init(jax.random.key(0), images)

    def maps(variables, **settings):
        return model.apply(variables, images, method="features", mutable=["batch_stats"], **settings)[0]

    still = jax.tree.map(jnp.zeros_like, variables["params"]["layer2_0"]["bn2"])
    without = {**variables, "params": {**variables["params"], "layer2_0": {**variables["params"]["layer2_0"], "bn2": still}}}
    dropped, shortcut = (maps(v, train=True, rngs={"dropout": jax.random.key(1)}) for v in (variables, without))
    np.testing.assert_array_equal(dropped["stride8"], shortcut["stride8"])
    assert not np.allclose(maps(variables)["stride8"], maps(without)["stride8"])


def test_the_bias_of_the_head_starts_where_it_is_told():
    model = models.create("resnet18", num_classes=5, depths=(1,), width=4, head_bias=-6.9)
    bias = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]["fc"]["bias"]
    np.testing.assert_allclose(bias, [-6.9] * 5, rtol=1e-6)


@pytest.mark.parametrize("group", [0, 4])
def test_bn_folded_into_its_convolution_is_the_same_function(x64, group):
    """Logits, gradients and running statistics in training, and logits in evaluation, from the same parameters."""
    settings = {"width": 8, "depths": (1, 2), "dtype": "float64", "param_dtype": "float64", "bn_group": group}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 32, 32, 3)))
    found = []
    for fold in (False, True):
        model = models.create("resnet50", num_classes=7, fold_bn=fold, **settings)
        variables = jax.jit(model.init)(jax.random.key(0), x)

        def loss(params, model=model, variables=variables):
            logits, updated = model.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.mean(jnp.square(logits)), (logits, updated)

        found.append((variables, jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"]), model.apply(variables, x)))
    plain, folded = found
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), folded, plain)


def test_folding_stores_no_wide_map_for_the_backward_pass():
    """Of each of two blocks, the output of the last convolution; of the first one, that of the shortcut's too."""
    images, wide = jnp.zeros((4, 16, 16, 3)), (4, 4, 4, 32)

    def kept(fold):
        model = models.create("resnet50", num_classes=3, width=8, depths=(2,), fold_bn=fold)
        variables = model.init(jax.random.key(0), images)

        def backward(params):
            return jax.vjp(
                lambda p: model.apply(variables | {"params": p}, images, train=True, mutable=["batch_stats"])[0], params
            )[1]

        residuals = jax.tree.leaves(jax.eval_shape(backward, variables["params"]))
        return sum(np.prod(leaf.shape) == np.prod(wide) for leaf in residuals)

    assert kept(True) <= kept(False) - 3
