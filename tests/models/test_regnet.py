"""RegNetY against torch, with torchvision's names; the rule that its depths and widths follow."""

import math
from collections import OrderedDict

import jax
import numpy as np
import pytest

from imagenet_jax import models


def torch_regnet(torch, depths, widths, group_width):
    """torchvision's RegNetY by its description."""
    nn = torch.nn

    def conv_bn(inputs, outputs, kernel, stride=1, groups=1):
        return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]

    class SqueezeExcite(nn.Module):
        def __init__(self, channels, squeezed):
            super().__init__()
            self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

        def forward(self, x):
            return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.f = nn.Sequential(
                OrderedDict(
                    a=nn.Sequential(*conv_bn(inputs, width, 1), nn.ReLU()),
                    b=nn.Sequential(*conv_bn(width, width, 3, stride, width // group_width), nn.ReLU()),
                    se=SqueezeExcite(width, round(inputs / 4)),
                    c=nn.Sequential(*conv_bn(width, width, 1)),
                )
            )
            if stride > 1 or inputs != width:
                self.proj = nn.Sequential(*conv_bn(inputs, width, 1, stride))

        def forward(self, x):
            return ((self.proj(x) if hasattr(self, "proj") else x) + self.f(x)).relu()

    trunk, inputs = nn.Sequential(), 32
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        blocks = OrderedDict((f"block{i}-{j}", Block(width if j else inputs, width, 1 if j else 2)) for j in range(depth))
        trunk.add_module(f"block{i}", nn.Sequential(blocks))
        inputs = width
    parts = {"stem": nn.Sequential(*conv_bn(3, 32, 3, 2), nn.ReLU()), "trunk_output": trunk}
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(inputs, 5)}
    return nn.Sequential(OrderedDict(parts)).eval()


def test_logits_are_torchs(torch, torch_state, drawn):
    settings = {"depths": (1, 2, 2, 1), "widths": (16, 32, 48, 80), "group_width": 8}
    model = models.create("regnet_y_400mf", num_classes=5, **settings)
    images = np.random.default_rng(1).normal(size=(2, 72, 96, 3)).astype(np.float32)
    variables = drawn(model, images)
    reference = torch_regnet(torch, **settings)
    reference.load_state_dict(torch_state(variables["params"]) | torch_state(variables["batch_stats"]))
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)(variables, images)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "depth", "start", "slope", "ratio"),  # the paper's figure 17: d, w_0, w_a, w_m
    [
        ("regnet_y_400mf", 16, 48, 27.9, 2.09),
        ("regnet_y_800mf", 14, 56, 38.8, 2.4),
        ("regnet_y_1_6gf", 27, 48, 20.7, 2.65),
        ("regnet_y_3_2gf", 21, 80, 42.6, 2.66),
        ("regnet_y_8gf", 17, 192, 76.8, 2.19),
        ("regnet_y_16gf", 18, 200, 106.2, 2.48),
    ],
)
def test_depths_and_widths_follow_the_papers_rule(name, depth, start, slope, ratio):
    """Equations 2 to 4: u_j = w_0 + w_a j; s_j = log(u_j / w_0) / log(w_m); w_j = w_0 w_m^round(s_j), in multiples of a group."""
    model = models.create(name, num_classes=1)
    exponents = [round(math.log((start + slope * j) / start) / math.log(ratio)) for j in range(depth)]
    assert model.depths == tuple(exponents.count(s) for s in range(4))
    for stage, width in enumerate(model.widths):
        assert width % model.group_width == 0
        assert abs(width - start * ratio**stage) < model.group_width
