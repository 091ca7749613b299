"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) and MobileNetV3 (Howard et al. 2019, arXiv 1905.02244).

Names and initial distributions are torchvision's, with `features.1.conv.0.0` written `features_1/conv_0_0`. The maps of
`features` are those after blocks; "pooled" is the mean of the last convolution, which widens the map for the classifier.
The settings:

same_padding: pad as TensorFlow does, and bn_epsilon=1e-3: the weights of Google's MobileNetV2, as transformers has them.
dropout: the share of the classifier's inputs that training drops, by the rng "dropout".
remat: keep only the blocks' inputs for the backward pass, and compute the rest again.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax

from imagenet_jax.models import batch_norm, layers, pooling


class Row(NamedTuple):
    """A block as a row of the papers' tables: `expanded` channels within, `width` after it; `se`: squeeze-and-excitation."""

    kernel: int
    expanded: int
    width: int
    se: bool
    act: Callable[[jax.Array], jax.Array]
    stride: int


class Block(nn.Module):
    """1x1 up, unless the width stays; depthwise; 1x1 down without activation; plus the input where the shapes agree."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    excite: Callable[..., nn.Module]
    row: Row
    prefix: str  # of the names: "conv" in V2, "block" in V3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, expanded, width, se, act, stride = row = self.row
        unit = partial(layers.conv_norm, self.conv, self.norm)
        names = (f"{self.prefix}_{i}" for i in range(5))
        y = x
        if expanded != x.shape[-1]:
            y = unit(y, expanded, act=act, name=next(names))
        y = unit(y, expanded, row.kernel, stride, groups=expanded, act=act, name=next(names))
        if se:
            y = self.excite(layers.round_channels(expanded // 4), gate=nn.hard_sigmoid, name=next(names))(y)
        if self.prefix == "conv":  # V2's last two layers are not nested
            y = self.conv(width, 1, name=next(names))(y)
            y = self.norm(name=next(names))(y)
        else:
            y = unit(y, width, name=next(names))
        return x + y if stride == 1 and width == x.shape[-1] else y


class MobileNet(layers.Classifier):
    rows: tuple[Row, ...] = ()
    prefix: str = "block"
    act: Callable[[jax.Array], jax.Array] = nn.hard_swish  # of the first and the last convolution
    stem: int = 16
    widest: int = 960  # channels of the last convolution
    hidden: int = 0  # V3: width of a dense layer before the classifier
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    same_padding: bool = False
    dropout: float = 0.2
    remat: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        statistics = {"momentum": self.bn_momentum, "epsilon": self.bn_epsilon}
        conv = partial(layers.conv, same=self.same_padding, **dtypes)
        norm = partial(batch_norm.BatchNorm, train=train, group=self.bn_group, **statistics, **dtypes)
        excite = partial(layers.SqueezeExcite, **dtypes)
        block = nn.remat(Block) if self.remat else Block

        x = layers.conv_norm(conv, norm, images.astype(self.dtype), self.stem, 3, 2, act=self.act, name="features_0")
        maps, stride = {}, 2
        for i, row in enumerate(self.rows):
            x = block(conv, norm, excite, row, self.prefix, name=f"features_{i + 1}")(x)
            stride *= row.stride
            maps[f"stride{stride}"] = x
        maps.pop("stride2", None)
        x = layers.conv_norm(conv, norm, x, self.widest, act=self.act, name=f"features_{len(self.rows) + 1}")
        maps["pooled"] = pooling.global_pool(x, self.wide)
        if head:
            maps["logits"] = self._classify(maps["pooled"], train)
        return maps

    def _classify(self, x: jax.Array, train: bool) -> jax.Array:
        # torchvision's nn.init.normal_(weight, 0, 0.01), with biases 0.
        dense = partial(nn.Dense, kernel_init=nn.initializers.normal(0.01), dtype=self.wide, param_dtype=self.param_dtype)
        if self.hidden:
            x = self.act(dense(self.hidden, name="classifier_0")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dense(self.num_classes, name="classifier_3" if self.hidden else "classifier_1")(x)


def _rows_v2(*stages: tuple[int, int, int, int]) -> tuple[Row, ...]:
    """Table 2 of the V2 paper: (expansion t, channels c, repeats n, stride s of the first)."""
    rows, width = [], 32
    for t, c, n, s in stages:
        for i in range(n):
            rows.append(Row(3, t * width, c, False, nn.relu6, s if i == 0 else 1))
            width = c
    return tuple(rows)


V2 = _rows_v2(
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
V3_LARGE = (  # Table 1 of the V3 paper
    Row(3, 16, 16, False, nn.relu, 1),
    Row(3, 64, 24, False, nn.relu, 2),
    Row(3, 72, 24, False, nn.relu, 1),
    Row(5, 72, 40, True, nn.relu, 2),
    Row(5, 120, 40, True, nn.relu, 1),
    Row(5, 120, 40, True, nn.relu, 1),
    Row(3, 240, 80, False, nn.hard_swish, 2),
    Row(3, 200, 80, False, nn.hard_swish, 1),
    Row(3, 184, 80, False, nn.hard_swish, 1),
    Row(3, 184, 80, False, nn.hard_swish, 1),
    Row(3, 480, 112, True, nn.hard_swish, 1),
    Row(3, 672, 112, True, nn.hard_swish, 1),
    Row(5, 672, 160, True, nn.hard_swish, 2),
    Row(5, 960, 160, True, nn.hard_swish, 1),
    Row(5, 960, 160, True, nn.hard_swish, 1),
)
V3_SMALL = (  # Table 2
    Row(3, 16, 16, True, nn.relu, 2),
    Row(3, 72, 24, False, nn.relu, 2),
    Row(3, 88, 24, False, nn.relu, 1),
    Row(5, 96, 40, True, nn.hard_swish, 2),
    Row(5, 240, 40, True, nn.hard_swish, 1),
    Row(5, 240, 40, True, nn.hard_swish, 1),
    Row(5, 120, 48, True, nn.hard_swish, 1),
    Row(5, 144, 48, True, nn.hard_swish, 1),
    Row(5, 288, 96, True, nn.hard_swish, 2),
    Row(5, 576, 96, True, nn.hard_swish, 1),
    Row(5, 576, 96, True, nn.hard_swish, 1),
)

mobilenet_v2 = partial(MobileNet, rows=V2, prefix="conv", act=nn.relu6, stem=32, widest=1280, bn_momentum=0.9, bn_epsilon=1e-5)
mobilenet_v3_small = partial(MobileNet, rows=V3_SMALL, widest=576, hidden=1024)
mobilenet_v3_large = partial(MobileNet, rows=V3_LARGE, widest=960, hidden=1280)
