"""RegNetY-400MF to 16GF (Radosavovic et al. 2020, arXiv 2003.13678): bottlenecks of ratio 1 with grouped 3x3
convolutions and squeeze-and-excitation, at depths and widths that follow the paper's linear rule (section 3.3).

The rule's results stand here as numbers: torchvision's, which rounds three widths to other multiples of the group width
than the paper (800MF: 144 and 784 for 128 and 768; 8GF: 224 for 168). Names are torchvision's too:
`trunk_output/block1/block1-0/f/a_0`. remat: keep the inputs of blocks alone for the backward pass.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

from imagenet_jax.models import batch_norm, layers, pooling

STEM = 32


class Transform(nn.Module):
    """1x1, grouped 3x3, squeeze-and-excitation to a quarter of the block's input channels, 1x1."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    squeeze_excite: Callable[..., nn.Module]
    width: int
    group_width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        groups, squeezed = self.width // self.group_width, round(x.shape[-1] / 4)
        x = nn.relu(self.norm(name="a_1")(self.conv(self.width, 1, name="a_0")(x)))
        x = nn.relu(self.norm(name="b_1")(self.conv(self.width, 3, self.stride, groups=groups, name="b_0")(x)))
        x = self.squeeze_excite(squeezed, name="se")(x)
        return self.norm(name="c_1")(self.conv(self.width, 1, name="c_0")(x))


class Block(nn.Module):
    """The transform beside the identity, or beside a projection where width or stride change."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    squeeze_excite: Callable[..., nn.Module]
    width: int
    group_width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        transform = Transform(self.conv, self.norm, self.squeeze_excite, self.width, self.group_width, self.stride, name="f")
        y = transform(x)
        if self.stride > 1 or x.shape[-1] != self.width:
            x = self.norm(name="proj_1")(self.conv(self.width, 1, self.stride, name="proj_0")(x))
        return layers.join(x, y)


class Stage(nn.Module):
    """`depth` blocks, the first at stride 2."""

    block: Callable[..., nn.Module]
    depth: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.depth):
            x = self.block(width=self.width, stride=1 if i else 2, name=f"{self.name}-{i}")(x)
        return x


class Trunk(nn.Module):
    """The four stages; the map that leaves each."""

    block: Callable[..., nn.Module]
    depths: tuple[int, ...]
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        maps = [x]
        for i, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), start=1):
            maps.append(Stage(self.block, depth, width, name=f"block{i}")(maps[-1]))
        return maps[1:]


class RegNet(layers.Classifier):
    """`depths`, `widths`: of the four stages. `group_width`: channels of a group, the same in all."""

    depths: tuple[int, ...] = (1, 3, 6, 6)
    widths: tuple[int, ...] = (48, 104, 208, 440)
    group_width: int = 8
    remat: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(layers.conv, **dtypes)
        norm = partial(batch_norm.BatchNorm, train=train, group=self.bn_group, **dtypes)
        squeeze_excite = partial(layers.SqueezeExcite, **dtypes)
        block = partial(nn.remat(Block) if self.remat else Block, conv, norm, squeeze_excite, group_width=self.group_width)

        x = nn.relu(norm(name="stem_1")(conv(STEM, 3, 2, name="stem_0")(images.astype(self.dtype))))
        stages = Trunk(block, self.depths, self.widths, name="trunk_output")(x)
        maps = {f"stride{4 * 2**i}": x for i, x in enumerate(stages)}
        maps["pooled"] = pooling.global_pool(stages[-1], self.wide)
        if head:
            # torchvision's initial values for the head of this family.
            init, wide = nn.initializers.normal(0.01), {"dtype": self.wide, "param_dtype": self.param_dtype}
            maps["logits"] = nn.Dense(self.num_classes, kernel_init=init, **wide, name="fc")(maps["pooled"])
        return maps


regnet_y_400mf = partial(RegNet, depths=(1, 3, 6, 6), widths=(48, 104, 208, 440), group_width=8)
regnet_y_800mf = partial(RegNet, depths=(1, 3, 8, 2), widths=(64, 144, 320, 784), group_width=16)
regnet_y_1_6gf = partial(RegNet, depths=(2, 6, 17, 2), widths=(48, 120, 336, 888), group_width=24)
regnet_y_3_2gf = partial(RegNet, depths=(2, 5, 13, 1), widths=(72, 216, 576, 1512), group_width=24)
regnet_y_8gf = partial(RegNet, depths=(2, 4, 10, 1), widths=(224, 448, 896, 2016), group_width=56)
regnet_y_16gf = partial(RegNet, depths=(2, 4, 11, 1), widths=(224, 448, 1232, 3024), group_width=112)
