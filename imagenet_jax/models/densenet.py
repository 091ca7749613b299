"""DenseNet-121 (Huang et al. 2016, arXiv 1608.06993): each layer sees the maps of all before it in its block.

Names are torchvision's: `features/denseblock1/denselayer1/norm1`. Maps are those that leave a block; "stride32" is after
the last norm. remat: keep the maps that layers add for the backward pass and compute the rest again; without it, the
normalised copies of all earlier maps make the memory grow with the square of a block's depth (Pleiss et al. 2017, arXiv
1707.06990).
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.models import batch_norm, layers, pooling

BOTTLENECK = 4  # the 1x1 convolution of a layer has this many times the channels that the layer adds


class DenseLayer(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3: `growth` new channels from all that there are."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    growth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(BOTTLENECK * self.growth, 1, name="conv1")(nn.relu(self.norm(name="norm1")(x)))
        return self.conv(self.growth, 3, name="conv2")(nn.relu(self.norm(name="norm2")(x)))


class DenseBlock(nn.Module):
    """`depth` layers, whose channels are appended to x."""

    layer: Callable[..., nn.Module]
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.depth):
            x = jnp.concatenate([x, self.layer(name=f"denselayer{i + 1}")(x)], -1)
        return x


class Transition(nn.Module):
    """Half the channels, by a 1x1 convolution, and half the side, by averages of 2x2 (an odd last row is left out)."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x.shape[-1] // 2, 1, name="conv")(nn.relu(self.norm(name="norm")(x)))
        return nn.avg_pool(x, (2, 2), (2, 2))


class Features(nn.Module):
    """All but the head: the maps by stride."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    layer: Callable[..., nn.Module]
    width: int
    depths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        x = nn.relu(self.norm(name="norm0")(self.conv(self.width, 7, 2, name="conv0")(x)))
        x = pooling.max_pool(x, 3, 2, (1, 1))
        maps = {}
        for i, depth in enumerate(self.depths, start=1):
            x = DenseBlock(self.layer, depth, name=f"denseblock{i}")(x)
            if i < len(self.depths):
                maps[f"stride{2 ** (i + 1)}"] = x
                x = Transition(self.conv, self.norm, name=f"transition{i}")(x)
        return {**maps, f"stride{2 ** (len(self.depths) + 1)}": nn.relu(self.norm(name=f"norm{len(self.depths) + 1}")(x))}


class DenseNet(layers.Classifier):
    """`depths`: layers in each block. `width`: channels of the stem. `growth`: channels that each layer adds."""

    depths: tuple[int, ...] = (6, 12, 24, 16)
    width: int = 64
    growth: int = 32
    remat: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(layers.conv, **dtypes, kernel_init=nn.initializers.he_normal())
        norm = partial(batch_norm.BatchNorm, train=train, group=self.bn_group, **dtypes)
        layer = partial(nn.remat(DenseLayer) if self.remat else DenseLayer, conv, norm, self.growth)
        maps = Features(conv, norm, layer, self.width, self.depths, name="features")(images.astype(self.dtype))
        last = list(maps.values())[-1]
        maps["pooled"] = pooling.global_pool(last, self.wide)
        if head:
            fc = layers.linear(self.num_classes, last.shape[-1], dtype=self.wide, param_dtype=self.param_dtype, name="classifier")
            maps["logits"] = fc(maps["pooled"])
        return maps


densenet121 = partial(DenseNet, depths=(6, 12, 24, 16))
