"""VGG-11/13/16/19 (Simonyan and Zisserman 2014, arXiv 1409.1556), and torchvision's variants with batch normalisation.

Names are torchvision's: `features.0` is `features_0`, where the numbers count convolutions, norms, ReLUs and poolings.
`classifier_6` is the head, and "pooled" what it sees: 4096 numbers. The dense layers take 7x7 maps; other image sizes
are averaged to that first, as in torchvision. dropout: rate after each of the two hidden dense layers, in training.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax.models import batch_norm, layers, pooling

SIDE = 7  # of the maps that the dense layers take: 224 / 32
# The paper starts from a trained 11-layer net; torchvision's initial values train from scratch.
dense = partial(nn.Dense, kernel_init=nn.initializers.normal(0.01))


class VGG(layers.Classifier):
    """`depths`: 3x3 convolutions before each of the five poolings, of `width` x 1, 2, 4, 8, 8 channels; then `hidden` twice."""

    depths: tuple[int, ...] = (1, 1, 2, 2, 2)
    width: int = 64
    hidden: int = 4096
    batch_norm: bool = False
    dropout: float = 0.5

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(batch_norm.BatchNorm, train=train, group=self.bn_group, **dtypes)
        drop = nn.Dropout(self.dropout, deterministic=not train)

        x, maps, index = images.astype(self.dtype), {}, 0
        for stage, depth in enumerate(self.depths):
            for _ in range(depth):
                x = layers.conv(self.width * min(2**stage, 8), 3, bias=True, **dtypes, name=f"features_{index}")(x)
                if self.batch_norm:
                    x = norm(name=f"features_{index + 1}")(x)
                x = nn.relu(x)
                index += 3 if self.batch_norm else 2
            if stage >= 2:
                maps[f"stride{2**stage}"] = x
            x = pooling.max_pool(x, 2, 2, (0, 0))
            index += 1
        maps["stride32"] = x

        x = adaptive_pool(x, SIDE).transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # torch flattens channels first
        x = drop(nn.relu(dense(self.hidden, **dtypes, name="classifier_0")(x)))
        x = drop(nn.relu(dense(self.hidden, **dtypes, name="classifier_3")(x)))
        maps["pooled"] = x.astype(self.wide)
        if head:
            fc = dense(self.num_classes, dtype=self.wide, param_dtype=self.param_dtype, name="classifier_6")
            maps["logits"] = fc(maps["pooled"])
        return maps


def adaptive_pool(x: jax.Array, side: int) -> jax.Array:
    """Average (n, h, w, c) to (n, side, side, c) as torch's AdaptiveAvgPool2d: window i of n pixels is [in/side, (i+1)n/side).

    The ends are rounded outwards, so windows overlap where `side` does not divide, and repeat where the map is smaller.
    """
    if x.shape[1:3] == (side, side):
        return x
    rows, columns = (jnp.asarray(_windows(n, side), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns)


def _windows(n: int, side: int) -> np.ndarray:
    """(side, n) float32: row i holds the weights of window i."""
    start = np.arange(side)[:, None] * n // side
    stop = -(-np.arange(1, side + 1)[:, None] * n // side)
    inside = (np.arange(n) >= start) & (np.arange(n) < stop)
    return (inside / (stop - start)).astype(np.float32)


vgg11 = partial(VGG, depths=(1, 1, 2, 2, 2))
vgg13 = partial(VGG, depths=(2, 2, 2, 2, 2))
vgg16 = partial(VGG, depths=(2, 2, 3, 3, 3))
vgg19 = partial(VGG, depths=(2, 2, 4, 4, 4))
vgg11_bn = partial(vgg11, batch_norm=True)
vgg13_bn = partial(vgg13, batch_norm=True)
vgg16_bn = partial(vgg16, batch_norm=True)
vgg19_bn = partial(vgg19, batch_norm=True)
