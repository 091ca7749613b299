"""The small ResNets for 32x32 images of He et al. 2015 (arXiv 1512.03385), section 4.2: 6n + 2 layers, widths 16-32-64.

Shortcuts are the paper's option A: where the map shrinks, every second pixel, with zeros for the new channels. It is
what the paper trained on CIFAR-10, so its parameter counts (0.27 M for ResNet-20) and error rates are the ones to
compare with; and it has no arithmetic, where projections (option B) would be two more convolutions with their BN.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.models import batch_norm, layers, pooling


class Block(nn.Module):
    """Two 3x3 convolutions and the shortcut."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    width: int
    stride: int
    last_scale: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.width, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.width, 3, name="conv2")(y)
        y = self.norm(name="bn2", scale_init=self.last_scale)(y)
        x = jax.lax.slice(x, (0,) * 4, x.shape, (1, self.stride, self.stride, 1))
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.width - x.shape[-1])))
        return layers.join(y, x)


class ResNetCifar(layers.Classifier):
    """`depth` blocks in each of three stages, at strides 1, 2 and 4; zero_init_last_bn as in resnet.py."""

    depth: int = 3
    width: int = 16
    zero_init_last_bn: bool = False
    native_size: int = 32

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(layers.conv, **dtypes)
        norm = partial(batch_norm.BatchNorm, train=train, group=self.bn_group, **dtypes)
        last_scale = nn.initializers.zeros if self.zero_init_last_bn else nn.initializers.ones

        x = conv(self.width, 3, name="conv1")(images.astype(self.dtype))
        x = nn.relu(norm(name="bn1")(x))
        maps = {}
        for stage in range(3):
            for i in range(self.depth):
                width, stride = self.width * 2**stage, 2 if stage > 0 and i == 0 else 1
                x = Block(conv, norm, width, stride, last_scale, name=f"layer{stage + 1}_{i}")(x)
            maps[f"stride{2**stage}"] = x
        maps["pooled"] = pooling.global_pool(x, self.wide)
        if head:
            fc = layers.linear(self.num_classes, x.shape[-1], dtype=self.wide, param_dtype=self.param_dtype, name="fc")
            maps["logits"] = fc(maps["pooled"])
        return maps


resnet8 = partial(ResNetCifar, depth=1)
resnet20 = partial(ResNetCifar, depth=3)
resnet32 = partial(ResNetCifar, depth=5)
resnet44 = partial(ResNetCifar, depth=7)
resnet56 = partial(ResNetCifar, depth=9)
resnet110 = partial(ResNetCifar, depth=18)
