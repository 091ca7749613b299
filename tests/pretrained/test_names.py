"""Names and layouts: against torch's own modules, strict on both sides, and bitwise there and back."""

import re

import jax
import numpy as np
import pytest

from imagenet_jax import models, tree
from imagenet_jax.errors import UserError
from imagenet_jax.pretrained import names, safetensors

SMALL = {  # one of each family, and what makes its shapes small or its names other
    "vgg11_bn": {"width": 4, "hidden": 8},
    "resnet18": {"width": 8},
    "resnet50": {"width": 8},
    "resnet50d": {"width": 8},
    "resnet8": {},
    "airbench94": {"widths": (8, 16, 16)},
    "densenet121": {},
    "regnet_y_400mf": {},
    "mobilenet_v2": {},
    "mobilenet_v3_small": {},
    "efficientnet_b0": {},
    "efficientnet_v2_s": {},
    "efficientnet_lite0": {},
    "nfnet_f0": {},
    "convnext_tiny": {"widths": (8, 16, 24, 32)},
    "convnextv2_atto": {},
    "vit_ti_16": {"layer_scale": 0.1},
    "vit_b_32": {"depth": 1},
    "deit_ti_16_distilled": {},
    "mixer_s_16": {},
}
KNOWN = [(name, naming) for name in SMALL for naming in names.namings(models.create(name, num_classes=7))]


def drawn(model):
    """Variables of random bits, drawn by numpy: nothing is compiled."""
    rng = np.random.default_rng(0)
    like = names.variables_like(model)
    return jax.tree.map(lambda leaf: np.abs(rng.standard_normal(leaf.shape)).astype(leaf.dtype), like)


def equal(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for (path, a), b in zip(tree.paths(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


@pytest.mark.parametrize(("name", "naming"), KNOWN)
def test_out_and_in_again_gives_the_same_bits(name, naming, tmp_path):
    model = models.create(name, num_classes=7, **SMALL[name])
    variables = drawn(model)
    tensors = names.to_torch(model, variables, naming)
    assert not [
        n
        for n in tensors
        if re.search(r"_\d(?!x\d)|/|\{|kernel|\.scale$|downsample_(conv|bn)", n)
        and "encoder_layer_" not in n
        and "linear_" not in n
    ]
    safetensors.write(tmp_path / "x.safetensors", tensors)
    got, found = names.from_torch(model, safetensors.read(tmp_path / "x.safetensors"))
    equal(got, variables)
    assert found == naming or list(names.theirs(model, variables, found).values()) == list(
        names.theirs(model, variables, naming).values()
    )


@pytest.mark.slow
def test_every_model_of_the_zoo_has_names_without_ours():
    """Where a family is not in the table its names are made by the rule alone."""
    for name in models.list_models():
        model = models.create(name, num_classes=7)
        wanted = names.theirs(model, names.variables_like(model), names.namings(model)[0])
        every = [n for w in wanted.values() for n in w.names]
        assert len(set(every)) == len(every), name


def test_logits_of_torch_from_its_own_state_dict(torch):
    """The module is written here in torch, named as torchvision's: names, layouts and BN statistics in one number."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
            if stride > 1:
                self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
            self.layer1 = nn.Sequential(Block(8, 8, 1), Block(8, 8, 1))
            self.layer2 = nn.Sequential(Block(8, 16, 2), Block(16, 16, 1))
            self.fc = nn.Linear(16, 5)

        def forward(self, x):
            x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
            return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))

    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.0) if tensor.ndim == 1 else tensor.normal_(0, 0.3)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32)
    with torch.no_grad():
        wanted = net.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    model = models.create("resnet18", num_classes=5, depths=(2, 2), width=8)
    variables, naming = names.from_torch(model, {k: v.numpy() for k, v in net.state_dict().items()})
    assert naming == "torchvision"
    with jax.default_matmul_precision("highest"):
        got = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_both_lists_are_printed():
    model = models.create("resnet8", num_classes=7)
    tensors = names.to_torch(model, drawn(model), "torchvision")
    tensors["bn1.num_batches_tracked"] = np.int64(3)
    names.from_torch(model, tensors)
    tensors["fc.bias"] = np.zeros(9, np.float32)
    tensors["extra.weight"] = tensors.pop("layer1.0.conv1.weight")
    with pytest.raises(UserError) as refused:
        names.from_torch(model, tensors)
    lines = [line.strip() for line in str(refused.value).splitlines()[1:]]
    assert sorted(lines) == [
        "left over  extra.weight (16, 16, 3, 3)",
        "missing    layer1.0.conv1.weight (16, 16, 3, 3)",
        "shape      fc.bias is (9,), wanted (7,)",
    ]


def test_half_precision_widens_exactly_and_integers_are_refused():
    model = models.create("resnet8", num_classes=7)
    tensors = {k: v.astype(np.float16) for k, v in names.to_torch(model, drawn(model), "torchvision").items()}
    variables, _ = names.from_torch(model, tensors)
    assert variables["params"]["fc"]["bias"].dtype == np.float32
    np.testing.assert_array_equal(variables["params"]["fc"]["bias"], tensors["fc.bias"])
    with pytest.raises(UserError, match="dtype int32, which is no weight's"):
        names.from_torch(model, tensors | {"fc.bias": np.zeros(7, np.int32)})


@pytest.mark.parametrize(
    ("name", "libraries"),
    [
        ("resnet50", ["torchvision", "timm", "transformers"]),
        ("resnet50d", ["timm"]),
        ("mobilenet_v3_large", ["torchvision"]),
        ("efficientnet_lite0", ["timm", "efficientnet_pytorch"]),
        ("convnextv2_atto", ["timm", "transformers", "facebookresearch"]),
        ("vit_s_16", ["timm", "transformers"]),
        ("resnet20", []),
    ],
)
def test_only_who_has_the_model_is_named(name, libraries):
    model = models.create(name, num_classes=7)
    assert names.libraries(model) == libraries
    with pytest.raises(UserError, match="No naming"):
        names.to_torch(model, {}, "torchvision_0.11")


def test_an_unknown_naming():
    model = models.create("resnet18", num_classes=7)
    with pytest.raises(UserError, match="Did you mean 'timm'"):
        names.to_torch(model, {}, "tim")
