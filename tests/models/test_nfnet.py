"""NFNet against torch, with timm's names; what keeps its signals of variance 1."""

import jax
import numpy as np

from imagenet_jax import models, tree
from imagenet_jax.models import nfnet


def torch_nfnet(torch, model):
    """timm's dm_nfnet with the depths and widths of `model`."""
    nn, functional = torch.nn, torch.nn.functional

    def act(x):
        return functional.gelu(x) * 1.7015043497085571

    class Conv(nn.Conv2d):
        def __init__(self, inputs, outputs, kernel, stride=1, groups=1):
            super().__init__(inputs, outputs, kernel, stride, groups=groups)
            self.gain = nn.Parameter(torch.empty(outputs, 1, 1, 1))

        def forward(self, x):
            pads = []
            for size in (x.shape[3], x.shape[2]):
                total = max(0, (-(-size // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - size)
                pads += [total // 2, total - total // 2]
            variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
            scale = self.gain / (self.weight[0].numel() * (variance + 1e-5)).sqrt()
            kernel = (self.weight - mean) * scale
            return functional.conv2d(functional.pad(x, pads), kernel, self.bias, self.stride, groups=self.groups)

    class SqueezeExcite(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.fc1, self.fc2 = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels // 2, channels, 1)

        def forward(self, x):
            return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()

    class Block(nn.Module):
        def __init__(self, inputs, width, stride, variance):
            super().__init__()
            middle, self.beta, self.stride = width // 2, variance**-0.5, stride
            if stride > 1 or inputs != width:
                self.downsample = nn.ModuleDict({"conv": Conv(inputs, width, 1)})
            groups = middle // model.group_width
            self.conv1, self.conv2 = Conv(inputs, middle, 1), Conv(middle, middle, 3, stride, groups)
            self.conv2b, self.conv3 = Conv(middle, middle, 3, 1, groups), Conv(middle, width, 1)
            self.attn_last, self.skipinit_gain = SqueezeExcite(width), nn.Parameter(torch.zeros(()))

        def forward(self, x):
            y = act(x) * self.beta
            if hasattr(self, "downsample"):
                pool = {"ceil_mode": True, "count_include_pad": False}
                x = self.downsample["conv"](functional.avg_pool2d(y, 2, 2, **pool) if self.stride > 1 else y)
            y = self.conv3(act(self.conv2b(act(self.conv2(act(self.conv1(y)))))))
            return x + 0.2 * self.skipinit_gain * 2 * self.attn_last(y)

    class NFNet(nn.Module):
        def __init__(self):
            super().__init__()
            w, inputs = model.widths[0] // 2, model.widths[0] // 2
            stem = ((3, w // 8, 2), (w // 8, w // 4, 1), (w // 4, w // 2, 1), (w // 2, w, 2))
            self.stem = nn.ModuleDict({f"conv{i}": Conv(a, b, 3, s) for i, (a, b, s) in enumerate(stem, start=1)})
            self.stages, variance = nn.ModuleList(), 1.0
            for stage, (depth, width) in enumerate(zip(model.depths, model.widths, strict=True)):
                blocks = nn.Sequential()
                for i in range(depth):
                    blocks.append(Block(inputs, width, 2 if stage and not i else 1, variance))
                    variance, inputs = (variance if i else 1.0) + 0.04, width
                self.stages.append(blocks)
            self.final_conv = Conv(inputs, 2 * inputs, 1)
            self.head = nn.ModuleDict({"fc": nn.Linear(2 * inputs, model.num_classes)})

        def forward(self, x):
            for name, conv in self.stem.items():
                x = conv(x if name == "conv1" else act(x))
            for stage in self.stages:
                x = stage(x)
            return self.head["fc"](act(self.final_conv(x)).mean((2, 3)))

    return NFNet().eval()


def test_logits_are_torchs(torch, torch_state, drawn):
    """Two blocks a stage show how the expected variance grows and starts anew; sizes are odd at some stride."""
    model = models.create("nfnet_f0", num_classes=5, depths=(2, 1, 2), widths=(64, 96, 128), group_width=16)
    images = (np.random.default_rng(1).normal(size=(2, 72, 52, 3)) + 1).astype(np.float32)
    variables = drawn(model, images)
    # Gains and the factors of branches that are not their initial 1 and 0, nor so small that nothing of the image comes through.
    params = tree.map_with_path(lambda path, leaf: 0.8 + 2 * leaf if path.endswith("gain") else leaf, variables["params"])
    reference = torch_nfnet(torch, model)
    reference.load_state_dict(torch_state(params))
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)({"params": params}, images)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_signals_keep_their_variance_from_convolution_to_convolution():
    """White noise through activation and scaled convolution, ten times: with the gain 1 / std(gelu) the variance stays 1."""
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 256)).astype(np.float32)
    conv = nfnet.ScaledConv(256, 1)
    run = jax.jit(lambda key, x: conv.init_with_output(key, nfnet.activation(x))[0])
    for i in range(10):
        x = run(jax.random.key(i), x)
    assert 0.7 < np.var(x) < 1.3
