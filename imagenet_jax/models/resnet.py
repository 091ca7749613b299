"""ResNet-18/34/50/101/152 for ImageNet (He et al. 2015, arXiv 1512.03385), torchvision's "v1.5" unless told otherwise.

Names are torchvision's, with `layer1.0.` written `layer1_0/` and `downsample.{0,1}` as `downsample_{conv,bn}`; so are
the defaults. The settings (the first two change the function: weights trained under one value need that value):

stride_on_1x1: a bottleneck's stride in its first 1x1 convolution (the paper's v1), not in the 3x3 (v1.5, torchvision:
    about 0.5 % more top-1 for 7 % more multiply-adds in ResNet-50).
max_pool_padding: pixels (before, after) of the stem's pooling; (0, 1) is what TensorFlow's "SAME" does to even sizes.
zero_init_last_bn: start every block as the identity (Goyal et al. 2017, section 5.1; torchvision: zero_init_residual).
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

from imagenet_jax.models import layers


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: ResNet-18 and -34."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    width: int
    stride: int
    last_scale: nn.initializers.Initializer
    stride_on_1x1: bool = False  # has no 1x1 convolution; takes the setting so that it fits where Bottleneck does
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.width, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.width, 3, name="conv2")(y)
        y = self.norm(name="bn2", scale_init=self.last_scale)(y)
        return nn.relu(y + shortcut(self, x))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width: ResNet-50 and deeper."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    width: int
    stride: int
    last_scale: nn.initializers.Initializer
    stride_on_1x1: bool = False
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = (self.stride, 1) if self.stride_on_1x1 else (1, self.stride)
        y = self.conv(self.width, 1, first, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.width, 3, second, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(self.width * self.expansion, 1, name="conv3")(y)
        y = self.norm(name="bn3", scale_init=self.last_scale)(y)
        return nn.relu(y + shortcut(self, x))


def shortcut(block: BasicBlock | Bottleneck, x: jax.Array) -> jax.Array:
    """The identity, or a projection where the block changes the stride or the width (option B of the paper)."""
    width = block.width * block.expansion
    if block.stride == 1 and x.shape[-1] == width:
        return x
    return block.norm(name="downsample_bn")(block.conv(width, 1, block.stride, name="downsample_conv")(x))


class ResNet(layers.Classifier):
    depths: tuple[int, ...] = (3, 4, 6, 3)
    block: type[BasicBlock] | type[Bottleneck] = Bottleneck
    width: int = 64
    stride_on_1x1: bool = False
    max_pool_padding: tuple[int, int] = (1, 1)
    zero_init_last_bn: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(layers.conv, **dtypes)
        norm = partial(layers.BatchNorm, train=train, group=self.bn_group, **dtypes)
        last_scale = nn.initializers.zeros if self.zero_init_last_bn else nn.initializers.ones

        x = conv(self.width, 7, 2, name="conv1")(images.astype(self.dtype))
        x = nn.relu(norm(name="bn1")(x))
        x = layers.max_pool(x, 3, 2, self.max_pool_padding)
        maps = {}
        for stage, depth in enumerate(self.depths):
            for i in range(depth):
                x = self.block(
                    conv,
                    norm,
                    width=self.width * 2**stage,
                    stride=2 if stage > 0 and i == 0 else 1,
                    stride_on_1x1=self.stride_on_1x1,
                    last_scale=last_scale,
                    name=f"layer{stage + 1}_{i}",
                )(x)
            maps[f"stride{4 * 2**stage}"] = x
        maps["pooled"] = layers.global_pool(x, self.wide)
        if head:
            fc = layers.linear(self.num_classes, x.shape[-1], dtype=self.wide, param_dtype=self.param_dtype, name="fc")
            maps["logits"] = fc(maps["pooled"])
        return maps


resnet18 = partial(ResNet, depths=(2, 2, 2, 2), block=BasicBlock)
resnet34 = partial(ResNet, depths=(3, 4, 6, 3), block=BasicBlock)
resnet50 = partial(ResNet, depths=(3, 4, 6, 3), block=Bottleneck)
resnet101 = partial(ResNet, depths=(3, 4, 23, 3), block=Bottleneck)
resnet152 = partial(ResNet, depths=(3, 8, 36, 3), block=Bottleneck)
