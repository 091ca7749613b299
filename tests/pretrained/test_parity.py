"""Logits of other people's models from their own tensors: torchvision's, timm's, transformers', and a few lines of torch.

docs/parity.md is the table of what was measured. IMAGENET_JAX_WRITE_PARITY=1 writes it anew:

    IMAGENET_JAX_WRITE_PARITY=1 python -m pytest -m slow tests/pretrained/test_parity.py
"""

import os
import pathlib
import re
import types

import jax
import numpy as np
import pytest

from imagenet_jax import models
from imagenet_jax.pretrained import names, safetensors

TABLE = pathlib.Path(__file__).parents[2] / "docs" / "parity.md"
BOUND = 1e-4
TENSORFLOW = {"same_padding": True, "bn_epsilon": 1e-3}
# Our model and its settings; whose, and what they call it (for transformers: its class and configuration); side of the images.
CASES = [
    ("resnet18", {}, "torchvision", "resnet18", 64),
    ("resnet50", {}, "torchvision", "resnet50", 64),
    ("resnet50d", {}, "timm", "resnet50d", 64),
    ("resnext50_32x4d", {}, "torchvision", "resnext50_32x4d", 64),
    ("resnet50", {"depths": (1, 1), "width": 8}, "transformers",
     ("ResNet", {"depths": [1, 1], "embedding_size": 8, "hidden_sizes": [32, 64]}), 64),
    ("vgg11_bn", {}, "torchvision", "vgg11_bn", 64),
    ("densenet121", {}, "torchvision", "densenet121", 64),
    ("regnet_y_400mf", {}, "torchvision", "regnet_y_400mf", 64),
    ("regnet_y_400mf", {}, "timm", "regnety_004", 64),
    ("regnet_y_400mf", {"depths": (1, 2), "widths": (16, 32)}, "transformers",
     ("RegNet", {"depths": [1, 2], "hidden_sizes": [16, 32], "embedding_size": 32, "groups_width": 8, "layer_type": "y"}), 64),
    ("mobilenet_v2", {}, "torchvision", "mobilenet_v2", 64),
    ("mobilenet_v2", {}, "timm", "mobilenetv2_100", 64),
    ("mobilenet_v2", TENSORFLOW, "transformers", ("MobileNetV2", {}), 64),
    ("mobilenet_v3_small", {}, "torchvision", "mobilenet_v3_small", 64),
    ("mobilenet_v3_large", {}, "torchvision", "mobilenet_v3_large", 64),
    ("efficientnet_b0", {}, "torchvision", "efficientnet_b0", 64),
    ("efficientnet_b0", TENSORFLOW, "timm", "tf_efficientnet_b0", 64),
    ("efficientnet_b0", TENSORFLOW, "transformers",
     ("EfficientNet", {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "dropout_rate": 0.0}), 64),
    ("efficientnet_v2_s", {}, "torchvision", "efficientnet_v2_s", 64),
    ("efficientnet_lite0", {}, "timm", "tf_efficientnet_lite0", 64),
    ("nfnet_f0", {}, "timm", "dm_nfnet_f0", 64),
    ("convnext_tiny", {}, "torchvision", "convnext_tiny", 64),
    ("convnext_tiny", {"depths": (1, 1, 1, 1), "widths": (8, 16, 24, 32)}, "transformers",
     ("ConvNext", {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}), 64),
    ("convnextv2_atto", {}, "timm", "convnextv2_atto", 64),
    ("convnextv2_tiny", {"depths": (1, 1, 1, 1), "widths": (8, 16, 24, 32)}, "transformers",
     ("ConvNextV2", {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}), 64),
    ("vit_b_32", {}, "torchvision", "vit_b_32", 224),
    ("vit_ti_16", {}, "timm", "vit_tiny_patch16_224", 224),
    ("vit_ti_16", {}, "transformers", ("ViT", {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}), 224),
    ("deit_ti_16_distilled", {}, "timm", "deit_tiny_distilled_patch16_224", 224),
    ("mixer_s_16", {}, "timm", "mixer_s16_224", 224),
    ("resnet20", {}, "plain torch", "resnet20", 32),
    ("airbench94", {}, "plain torch", "airbench94", 32),
]  # fmt: skip


def label(case) -> tuple[str, str, str]:
    """The first columns of the case's row."""
    name, settings, library, theirs, _ = case
    small = ", small" if "depths" in settings else ""
    return name + small, library, theirs if isinstance(theirs, str) else f"{theirs[0]}ForImageClassification"


@pytest.fixture(scope="module")
def rows():
    """Rows that the cases add; written at the end where that is asked for and all are there."""
    found: dict[tuple[str, str, str], tuple[float, float]] = {}
    yield found
    if os.environ.get("IMAGENET_JAX_WRITE_PARITY") == "1" and len(found) == len(CASES):
        lines = ["| ours | reference | its name | largest logit | largest difference |", "|---|---|---|---|---|"]
        lines += [f"| {' | '.join(key)} | {size:.2f} | {worst:.1e} |" for key, (size, worst) in found.items()]
        TABLE.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")


HEADER = """# Held against other implementations

Logits of two random images in float32 on the CPU, from the reference's own state dict or file: random weights, BatchNorm's
statistics those of random images, moved. Every difference must be at most 1e-4. Written by `tests/pretrained/test_parity.py`;
"small" says that fewer and narrower layers were taken.

"""


def test_the_table_covers_every_family_within_the_bound():
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    worst = {tuple(row[:3]): float(row[4]) for row in cells[1:]}
    assert list(worst) == [label(case) for case in CASES]
    assert max(worst.values()) <= BOUND
    families = {type(models.create(name, num_classes=1)) for name in models.list_models()}
    assert {type(models.create(case[0], num_classes=1)) for case in CASES} == families


def module_of(library, theirs, request):
    if library == "plain torch":
        return PLAIN[theirs](request.getfixturevalue("torch"))
    package = request.getfixturevalue(library)
    if library == "torchvision":
        return package.models.get_model(theirs, num_classes=7)
    if library == "timm":
        return package.create_model(theirs, num_classes=7)
    kind, configuration = theirs
    return getattr(package, f"{kind}ForImageClassification")(getattr(package, f"{kind}Config")(num_labels=7, **configuration))


def plain_resnet20(torch):
    """He et al. 2015, section 4.2: shortcuts take every second value and are padded with zeros (option A)."""
    nn, f = torch.nn, torch.nn.functional

    def block(inputs, width, stride):
        b = nn.Module()
        b.conv1, b.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        b.conv2, b.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)

        def forward(x):
            y = b.bn2(b.conv2(b.bn1(b.conv1(x)).relu()))
            return (y + f.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, width - inputs))).relu()

        b.forward = forward
        return b

    net = nn.Sequential()
    net.conv1, net.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
    for i, (inputs, width) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
        stages = [block(inputs if j == 0 else width, width, 2 if j == 0 and i > 1 else 1) for j in range(3)]
        setattr(net, f"layer{i}", nn.Sequential(*stages))
    net.fc = nn.Linear(64, 7)
    net.forward = types.MethodType(
        lambda n, x: n.fc(n.layer3(n.layer2(n.layer1(n.bn1(n.conv1(x)).relu()))).mean((2, 3))), net
    )  # fmt: skip
    return net


def plain_airbench94(torch):
    """As its authors', by our names; BatchNorm's bias is 8 times its parameter."""
    nn, f = torch.nn, torch.nn.functional

    def group(inputs, width):
        g = nn.Module()
        for i, fed in ((1, inputs), (2, width)):
            setattr(g, f"conv{i}", nn.Conv2d(fed, width, 3, padding="same", bias=False))
            setattr(g, f"norm{i}", nn.BatchNorm2d(width, eps=1e-12, affine=False))
            setattr(g, f"norm{i}_shift", nn.Module())
            getattr(g, f"norm{i}_shift").bias = nn.Parameter(torch.zeros(width))

        def forward(x):
            x = f.gelu(g.norm1(f.max_pool2d(g.conv1(x), 2)) + 8 * g.norm1_shift.bias.view(1, -1, 1, 1))
            return f.gelu(g.norm2(g.conv2(x)) + 8 * g.norm2_shift.bias.view(1, -1, 1, 1))

        g.forward = forward
        return g

    net = nn.Sequential()
    net.whiten = nn.Conv2d(3, 24, 2)
    net.group1, net.group2, net.group3 = group(24, 64), group(64, 256), group(256, 256)
    net.fc = nn.Linear(256, 7, bias=False)
    net.forward = types.MethodType(
        lambda n, x: n.fc(f.max_pool2d(n.group3(n.group2(n.group1(f.gelu(n.whiten(x))))), 3).flatten(1)) / 9, net
    )  # fmt: skip
    return net


PLAIN = {"resnet20": plain_resnet20, "airbench94": plain_airbench94}


def randomise(torch, module, images):
    """Weights that keep the variance of what they map; no scale 1, no bias 0; BatchNorm's statistics of `images`, then moved."""
    rng = np.random.default_rng(0)
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for key, tensor in module.named_parameters():
            if tensor.ndim > 1 and not re.search("token|pos|grn", key):
                value = rng.standard_normal(tensor.shape) * (2 / np.prod(tensor.shape[1:])) ** 0.5
            elif key.endswith("weight"):
                value = rng.uniform(0.5, 1.5, tensor.shape)
            else:
                value = rng.normal(0, 0.1, tensor.shape)
            tensor.copy_(torch.from_numpy(np.asarray(value)))
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            module.train()(images)
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt()
            norm.running_var *= torch.from_numpy(rng.uniform(0.8, 1.25, len(norm.running_var)).astype(np.float32))
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(label(case)[:2]).replace(" ", "_"))
def test_logits_from_their_own_state_dict(case, request, rows, torch, tmp_path):
    name, settings, library, theirs, side = case
    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    module = module_of(library, theirs, request)
    randomise(torch, module, torch.from_numpy(rng.standard_normal((8, 3, side, side), np.float32)))
    images = rng.standard_normal((2, side, side, 3), np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    wanted = getattr(wanted, "logits", wanted).numpy()
    model = models.create(name, num_classes=7, **settings)
    if library == "transformers":  # the names of its files are not those of its modules
        module.save_pretrained(tmp_path)
        variables, naming = names.from_torch(model, safetensors.read(tmp_path / "model.safetensors"))
        assert naming == library
    else:
        variables, _ = names.from_torch(model, {key: tensor.numpy() for key, tensor in module.state_dict().items()})
    with jax.default_matmul_precision("highest"):
        got = jax.jit(model.apply)(variables, images)
    assert wanted.std() > 1e-3
    worst = float(np.abs(got - wanted).max())
    rows[label(case)] = (float(np.abs(wanted).max()), worst)
    assert worst <= BOUND
