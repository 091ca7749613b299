"""EfficientNet (Tan and Le 2019, arXiv 1905.11946), its V2 (2021, arXiv 2104.00298) and EfficientNet-Lite (Google 2020).

Names are torchvision's for all, with `features.1.0.block.0.0` written `features_1_0/block_0_0`; so are the defaults of B
and V2. The maps of `features` are those after blocks; "pooled" is the mean of the last convolution, which widens the map
for the classifier. The settings (the first two change the function: weights trained under one value need that value):

same_padding: pad as TensorFlow does: Lite, and whatever was trained there, such as timm's "tf_efficientnet_b0".
bn_epsilon: 1e-3 in TensorFlow; torchvision has 1e-5 in B0 to B4. bn_momentum: how much running statistics keep.
dropout: the share of the classifier's inputs that training drops, by the rng "dropout".
drop_path: rate of stochastic depth, by the same rng; block i of n has i / n of it.
remat: keep only the blocks' inputs for the backward pass, and compute the rest again.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from imagenet_jax.models import batch_norm, layers, pooling

# torchvision's nn.init.uniform_ within +-1/sqrt(classes), whose variance is 1/(3 classes); biases 0.
dense_init = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")


class Stage(NamedTuple):
    """A row of the papers' tables: `repeats` blocks to `width` channels, `expand` times their input within."""

    expand: int
    kernel: int
    stride: int  # of the first block
    width: int
    repeats: int
    fused: bool = False


class Block(nn.Module):
    """MBConv: 1x1 up, depthwise, squeeze-and-excitation, 1x1 down without activation; plus the input where shapes agree.

    Fused (V2): one convolution in the place of the first three. With expand 1, what is 1x1 up, or down after fused, is left out.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    excite: Callable[..., nn.Module] | None
    act: Callable[[jax.Array], jax.Array]
    stage: Stage
    stride: int
    drop_path: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        expand, kernel, _, width, _, fused = self.stage
        unit = partial(layers.conv_norm, self.conv, self.norm)
        names = (f"block_{i}" for i in range(4))
        inputs, y = x.shape[-1], x
        hidden = inputs * expand
        if fused:
            y = unit(y, width if expand == 1 else hidden, kernel, self.stride, act=self.act, name=next(names))
        else:
            if expand != 1:
                y = unit(y, hidden, act=self.act, name=next(names))
            y = unit(y, hidden, kernel, self.stride, groups=hidden, act=self.act, name=next(names))
            if self.excite:
                y = self.excite(max(1, inputs // 4), activation=self.act, name=next(names))(y)
        if not fused or expand != 1:
            y = unit(y, width, name=next(names))
        if self.stride == 1 and inputs == width:
            y = x + layers.drop_path(y, self.drop_path, self.train)
        return y


class EfficientNet(layers.Classifier):
    stages: tuple[Stage, ...] = ()
    stem: int = 32
    widest: int = 1280  # channels of the last convolution
    act: Callable[[jax.Array], jax.Array] = nn.silu
    se: bool = True  # squeeze-and-excitation
    same_padding: bool = False
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9
    dropout: float = 0.2
    drop_path: float = 0.2
    remat: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        statistics = {"momentum": self.bn_momentum, "epsilon": self.bn_epsilon}
        conv = partial(layers.conv, same=self.same_padding, **dtypes)
        norm = partial(batch_norm.BatchNorm, train=train, group=self.bn_group, **statistics, **dtypes)
        excite = partial(layers.SqueezeExcite, **dtypes) if self.se else None
        block = nn.remat(Block) if self.remat else Block

        x = layers.conv_norm(conv, norm, images.astype(self.dtype), self.stem, 3, 2, act=self.act, name="features_0")
        maps, total_stride, index = {}, 2, 0
        blocks = sum(stage.repeats for stage in self.stages)
        for number, stage in enumerate(self.stages, start=1):
            for i in range(stage.repeats):
                stride, rate = stage.stride if i == 0 else 1, self.drop_path * index / blocks
                x = block(conv, norm, excite, self.act, stage, stride, rate, train, name=f"features_{number}_{i}")(x)
                index += 1
            total_stride *= stage.stride
            maps[f"stride{total_stride}"] = x
        maps.pop("stride2", None)
        x = layers.conv_norm(conv, norm, x, self.widest, act=self.act, name=f"features_{len(self.stages) + 1}")
        maps["pooled"] = pooling.global_pool(x, self.wide)
        if head:
            x = nn.Dropout(self.dropout, deterministic=not train)(maps["pooled"])
            dense = partial(nn.Dense, kernel_init=dense_init, dtype=self.wide, param_dtype=self.param_dtype)
            maps["logits"] = dense(self.num_classes, name="classifier_1")(x)
        return maps


TENSORFLOW = {"bn_epsilon": 1e-3, "bn_momentum": 0.99}
B0 = (  # Table 1 of the first paper
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
V2_S = (  # Table 4 of the second, as its authors' code and torchvision have it
    Stage(1, 3, 1, 24, 2, fused=True),
    Stage(4, 3, 2, 48, 4, fused=True),
    Stage(4, 3, 2, 64, 4, fused=True),
    Stage(4, 3, 2, 128, 6),
    Stage(6, 3, 1, 160, 9),
    Stage(6, 3, 2, 256, 15),
)
V2_M = (
    Stage(1, 3, 1, 24, 3, fused=True),
    Stage(4, 3, 2, 48, 5, fused=True),
    Stage(4, 3, 2, 80, 5, fused=True),
    Stage(4, 3, 2, 160, 7),
    Stage(6, 3, 1, 176, 14),
    Stage(6, 3, 2, 304, 18),
    Stage(6, 3, 1, 512, 5),
)
V2_L = (
    Stage(1, 3, 1, 32, 4, fused=True),
    Stage(4, 3, 2, 64, 7, fused=True),
    Stage(4, 3, 2, 96, 7, fused=True),
    Stage(4, 3, 2, 192, 10),
    Stage(6, 3, 1, 224, 19),
    Stage(6, 3, 2, 384, 25),
    Stage(6, 3, 1, 640, 7),
)


def _scaled(width: float, depth: float) -> dict[str, Any]:
    """Compound scaling of B0 (section 4 of the first paper)."""
    stages = tuple(s._replace(width=layers.round_channels(width * s.width), repeats=math.ceil(depth * s.repeats)) for s in B0)
    return {"stages": stages, "stem": layers.round_channels(width * 32), "widest": 4 * stages[-1].width}


def _lite(width: float, depth: float) -> dict[str, Any]:
    """Lite: no squeeze-and-excitation, ReLU6; the stem, the head and the depth of the first and last stage are not scaled."""
    first, *middle, last = _scaled(width, depth)["stages"]
    return {
        "stages": (first._replace(repeats=1), *middle, last._replace(repeats=1)),
        "act": nn.relu6,
        "se": False,
        "same_padding": True,
        **TENSORFLOW,
    }


efficientnet_b0 = partial(EfficientNet, **_scaled(1.0, 1.0), dropout=0.2, native_size=224)
efficientnet_b1 = partial(EfficientNet, **_scaled(1.0, 1.1), dropout=0.2, native_size=240)
efficientnet_b2 = partial(EfficientNet, **_scaled(1.1, 1.2), dropout=0.3, native_size=288)
efficientnet_b3 = partial(EfficientNet, **_scaled(1.2, 1.4), dropout=0.3, native_size=300)
efficientnet_b4 = partial(EfficientNet, **_scaled(1.4, 1.8), dropout=0.4, native_size=380)
efficientnet_b5 = partial(EfficientNet, **_scaled(1.6, 2.2), **TENSORFLOW, dropout=0.4, native_size=456)
efficientnet_b6 = partial(EfficientNet, **_scaled(1.8, 2.6), **TENSORFLOW, dropout=0.5, native_size=528)
efficientnet_b7 = partial(EfficientNet, **_scaled(2.0, 3.1), **TENSORFLOW, dropout=0.5, native_size=600)
efficientnet_v2_s = partial(EfficientNet, stages=V2_S, stem=24, bn_epsilon=1e-3, dropout=0.2, native_size=384)
efficientnet_v2_m = partial(EfficientNet, stages=V2_M, stem=24, bn_epsilon=1e-3, dropout=0.3, native_size=480)
efficientnet_v2_l = partial(EfficientNet, stages=V2_L, stem=32, bn_epsilon=1e-3, dropout=0.4, native_size=480)
efficientnet_lite0 = partial(EfficientNet, **_lite(1.0, 1.0), dropout=0.2, native_size=224)
efficientnet_lite1 = partial(EfficientNet, **_lite(1.0, 1.1), dropout=0.2, native_size=240)
efficientnet_lite2 = partial(EfficientNet, **_lite(1.1, 1.2), dropout=0.3, native_size=260)
efficientnet_lite3 = partial(EfficientNet, **_lite(1.2, 1.4), dropout=0.3, native_size=280)
efficientnet_lite4 = partial(EfficientNet, **_lite(1.4, 1.8), dropout=0.3, native_size=300)
