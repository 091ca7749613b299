"""ResNet-18/34/50/101/152 for ImageNet (He et al. 2015, arXiv 1512.03385), torchvision's "v1.5" unless told otherwise,
and what other widths or another stem make of it: ResNeXt, Wide ResNet and ResNet-D.

Names are torchvision's, with `layer1.0.` written `layer1_0/` and `downsample.{0,1}` as `downsample_{conv,bn}`; so are
the defaults. The deep stem's are timm's: `conv1.0` is `conv1_0`. The settings (all but the last two change the function:
weights trained under one value need that value):

groups, group_width: the 3x3 convolution of a bottleneck has `groups` groups of `group_width` channels in the first stage,
    and of twice as many in each further one. ResNeXt (Xie et al. 2016, arXiv 1611.05431) 32x4d: 32 and 4; Wide ResNet
    (Zagoruyko and Komodakis 2016, arXiv 1605.07146) 50-2: 1 and 128.
variant_d: ResNet-D (He et al. 2018, arXiv 1812.01187, section 4): three 3x3 convolutions in place of the stem's 7x7, and
    shortcuts that average 2x2 pixels before their 1x1 convolution, which at stride 2 would not see three quarters of them.
stride_on_1x1: a bottleneck's stride in its first 1x1 convolution (the paper's v1), not in the 3x3 (v1.5, torchvision:
    about 0.5 % more top-1 for 7 % more multiply-adds in ResNet-50).
max_pool_padding: pixels (before, after) of the stem's pooling; (0, 1) is what TensorFlow's "SAME" does to even sizes.
blur_pool: blur before every strided convolution of a block (Zhang 2019, arXiv 1904.11486, as FFCV places it).
drop_path: of the last block, see layers. head_bias: where the classifier's bias starts; None: as in torch.
zero_init_last_bn: start every block as the identity (Goyal et al. 2017, section 5.1; torchvision: zero_init_residual).
fold_bn: fold the BN behind a bottleneck's widening 1x1 convolutions into their kernels, in training too (batch_norm.BatchNorm with
    `kernel`): their wide outputs are then never in memory, for a tenth more operations (docs/speed.md). Made for BN groups of all
    images of a device.
remat: keep the inputs of blocks alone for the backward pass and compute the rest again: a forward pass more a step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from imagenet_jax.errors import UserError
from imagenet_jax.models import batch_norm, layers, pooling


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: ResNet-18 and -34."""

    conv: Callable[..., Callable[[jax.Array], jax.Array]]
    norm: Callable[..., nn.Module]
    width: int
    stride: int
    last_scale: nn.initializers.Initializer
    pooled_shortcut: bool
    drop: Callable[[jax.Array], jax.Array]  # of the branch: stochastic depth
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.width, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.width, 3, name="conv2")(y)
        y = self.norm(name="bn2", scale_init=self.last_scale)(y)
        return layers.join(self.drop(y), shortcut(self, x))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width: ResNet-50 and deeper. `inner`: channels of the 3x3."""

    conv: Callable[..., Callable[[jax.Array], jax.Array]]
    norm: Callable[..., nn.Module]
    width: int
    stride: int
    last_scale: nn.initializers.Initializer
    pooled_shortcut: bool
    drop: Callable[[jax.Array], jax.Array]  # of the branch: stochastic depth
    inner: int
    groups: int
    stride_on_1x1: bool
    fold_bn: bool
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = (self.stride, 1) if self.stride_on_1x1 else (1, self.stride)
        y = self.conv(self.inner, 1, first, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.inner, 3, second, groups=self.groups, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = widened(self, y, "conv3", "bn3", scale_init=self.last_scale)
        return layers.join(self.drop(y), shortcut(self, x))


def shortcut(block: BasicBlock | Bottleneck, x: jax.Array) -> jax.Array:
    """The identity, or a projection where the block changes the stride or the width (option B of the paper)."""
    width, stride = block.width * block.expansion, block.stride
    if stride == 1 and x.shape[-1] == width:
        return x
    if block.pooled_shortcut and stride > 1:
        # Odd sizes: the last window holds what is left of it, and averages that (torch: ceil_mode, not count_include_pad).
        x, stride = nn.avg_pool(x, (stride, stride), (stride, stride), "SAME", count_include_pad=False), 1
    return widened(block, x, "downsample_conv", "downsample_bn", stride)


def widened(block: BasicBlock | Bottleneck, x: jax.Array, conv: str, norm: str, stride: int = 1, **settings: Any) -> jax.Array:
    """A 1x1 convolution to the width of the block's output, and its BN; `settings` are of the latter."""
    width, normalise = block.width * block.expansion, block.norm(name=norm, **settings)
    if isinstance(block, Bottleneck) and block.fold_bn:
        kernel = layers.Kernel(width, normalise.param_dtype, name=conv)(x.shape[-1])
        for axis in (1, 2):
            x = jax.lax.slice_in_dim(x, 0, None, stride, axis)
        return normalise(x, kernel)
    return normalise(block.conv(width, 1, stride, name=conv)(x))


def blurred_conv(features: int, kernel: int, stride: int = 1, **settings: Any) -> Callable[[jax.Array], jax.Array]:
    """`layers.conv`, and before it, where it is strided, a blur; a stride alone takes every other pixel as it comes."""
    conv = layers.conv(features, kernel, stride, **settings)
    return conv if stride == 1 else lambda x: conv(pooling.blur(x))


class ResNet(layers.Classifier):
    """Four stages of `depths` blocks; those of stage s work on `width` x 2^s channels. UserError: groups in basic blocks."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    block: type[BasicBlock] | type[Bottleneck] = Bottleneck
    width: int = 64
    groups: int = 1
    group_width: int = 64
    variant_d: bool = False
    stride_on_1x1: bool = False
    max_pool_padding: tuple[int, int] = (1, 1)
    blur_pool: bool = False
    drop_path: float = 0.0
    head_bias: float | None = None
    zero_init_last_bn: bool = False
    fold_bn: bool = False
    remat: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(layers.conv, **dtypes)
        norm = partial(batch_norm.BatchNorm, train=train, group=self.bn_group, **dtypes)
        block = nn.remat(self.block) if self.remat else self.block

        x = self._stem(images.astype(self.dtype), conv, norm)
        x = pooling.max_pool(x, 3, 2, self.max_pool_padding)
        in_block = partial(blurred_conv, **dtypes) if self.blur_pool else conv
        rates = iter(layers.drop_path_rates(self.drop_path, sum(self.depths)))
        maps = {}
        for stage, depth in enumerate(self.depths):
            for i in range(depth):
                x = block(
                    in_block,
                    norm,
                    width=self.width * 2**stage,
                    stride=2 if stage > 0 and i == 0 else 1,
                    last_scale=nn.initializers.zeros if self.zero_init_last_bn else nn.initializers.ones,
                    pooled_shortcut=self.variant_d,
                    drop=partial(layers.drop_path, rate=next(rates), train=train),
                    name=f"layer{stage + 1}_{i}",
                    **self._bottleneck(self.width * 2**stage),
                )(x)
            maps[f"stride{4 * 2**stage}"] = x
        maps["pooled"] = pooling.global_pool(x, self.wide)
        if head:
            wide = {"dtype": self.wide, "param_dtype": self.param_dtype}
            fc = layers.linear(self.num_classes, x.shape[-1], bias=self.head_bias, **wide, name="fc")
            maps["logits"] = fc(maps["pooled"])
        return maps

    def _stem(self, x: jax.Array, conv: Callable[..., nn.Module], norm: Callable[..., nn.Module]) -> jax.Array:
        if self.variant_d:
            x = nn.relu(norm(name="conv1_1")(conv(self.width // 2, 3, 2, name="conv1_0")(x)))
            x = nn.relu(norm(name="conv1_4")(conv(self.width // 2, 3, name="conv1_3")(x)))
            x = conv(self.width, 3, name="conv1_6")(x)
        else:
            x = conv(self.width, 7, 2, name="conv1")(x)
        return nn.relu(norm(name="bn1")(x))

    def _bottleneck(self, width: int) -> dict[str, Any]:
        """What a bottleneck takes beyond a basic block, in the stage of `width`."""
        if self.block is BasicBlock:
            if (self.groups, self.group_width, self.stride_on_1x1, self.fold_bn) != (1, 64, False, False):
                raise UserError(
                    f"groups={self.groups}, group_width={self.group_width}, stride_on_1x1={self.stride_on_1x1}, "
                    f"fold_bn={self.fold_bn}: these settings are of bottlenecks, and ResNet-18 and -34 have basic blocks. Leave "
                    "them out, or take resnet50 or deeper."
                )
            return {}
        inner = width * self.group_width // 64 * self.groups  # 64: the first stage's width, for which group_width is meant
        return {"inner": inner, "groups": self.groups, "stride_on_1x1": self.stride_on_1x1, "fold_bn": self.fold_bn}


resnet18 = partial(ResNet, depths=(2, 2, 2, 2), block=BasicBlock)
resnet34 = partial(ResNet, depths=(3, 4, 6, 3), block=BasicBlock)
resnet50 = partial(ResNet, depths=(3, 4, 6, 3))
resnet101 = partial(ResNet, depths=(3, 4, 23, 3))
resnet152 = partial(ResNet, depths=(3, 8, 36, 3))
resnet50d = partial(resnet50, variant_d=True)
resnext50_32x4d = partial(resnet50, groups=32, group_width=4)
resnext101_32x8d = partial(resnet101, groups=32, group_width=8)
resnext101_64x4d = partial(resnet101, groups=64, group_width=4)
wide_resnet50_2 = partial(resnet50, group_width=128)
wide_resnet101_2 = partial(resnet101, group_width=128)
