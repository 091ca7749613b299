"""DenseNet against torch, with torchvision's names."""

import jax
import numpy as np

from imagenet_jax import models

DEPTHS, WIDTH, GROWTH = (2, 3, 1, 2), 16, 8


def torch_densenet(torch):
    """torchvision's DenseNet by its description."""
    nn = torch.nn

    class Layer(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * GROWTH, 1, bias=False)
            self.norm2, self.conv2 = nn.BatchNorm2d(4 * GROWTH), nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

        def forward(self, x):
            return torch.cat([x, self.conv2(self.norm2(self.conv1(self.norm1(x).relu())).relu())], 1)

    features = nn.Sequential()
    features.add_module("conv0", nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False))
    features.add_module("norm0", nn.BatchNorm2d(WIDTH))
    features.add_module("relu0", nn.ReLU())
    features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
    channels = WIDTH
    for i, depth in enumerate(DEPTHS, start=1):
        block = nn.Sequential()
        for j in range(depth):
            block.add_module(f"denselayer{j + 1}", Layer(channels + j * GROWTH))
        features.add_module(f"denseblock{i}", block)
        channels += depth * GROWTH
        if i < 4:
            transition = nn.Sequential()
            transition.add_module("norm", nn.BatchNorm2d(channels))
            transition.add_module("relu", nn.ReLU())
            transition.add_module("conv", nn.Conv2d(channels, channels // 2, 1, bias=False))
            transition.add_module("pool", nn.AvgPool2d(2))
            features.add_module(f"transition{i}", transition)
            channels //= 2
    features.add_module("norm5", nn.BatchNorm2d(channels))
    net = nn.Sequential()
    net.add_module("features", features)
    net.add_module("relu", nn.ReLU())
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Linear(channels, 5))
    return net.eval()


def test_logits_are_torchs(torch, torch_state, drawn):
    """72 pixels: the third transition halves a map of 9, whose last row it leaves out."""
    model = models.create("densenet121", num_classes=5, depths=DEPTHS, width=WIDTH, growth=GROWTH)
    images = np.random.default_rng(1).normal(size=(2, 72, 104, 3)).astype(np.float32)
    variables = drawn(model, images)
    reference = torch_densenet(torch)
    reference.load_state_dict(torch_state(variables["params"]) | torch_state(variables["batch_stats"]))
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)(variables, images)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
