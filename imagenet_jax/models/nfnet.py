"""NFNet-F0 and F1 (Brock et al. 2021, arXiv 2102.06171): residual networks without normalisation.

Names are those of timm's dm_nfnet_f0, which carries the authors' weights, with `stages.0.0.conv1` written
`stages_0_0/conv1`. Signals keep their variance through standardised kernels, scaled activations and damped branches.
Trained with adaptive gradient clipping (config key `agc`). The settings, beside the sizes:

dropout: the share of the classifier's inputs that training drops, by the rng "dropout".
drop_path: rate of stochastic depth, by the same rng; block i of n has i / n of it.
remat: keep only the blocks' inputs for the backward pass, and compute the rest again.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.models import layers, pooling

# 1 / the standard deviation of gelu(x) for x ~ N(0, 1).
GELU_GAIN = 1.7015043497085571
ALPHA = 0.2  # of the branches: each block adds 0.04 to the variance


class ScaledConv(nn.Module):
    """A convolution whose kernel has, for each output, mean 0 and variance 1 / fan-in, times a learnt gain; "SAME" padding.

    Scaled weight standardisation: equation 1 of the paper. x: (n, h, w, c). Parameters: kernel, bias, and gain in timm's shape,
    (features, 1, 1, 1).
    """

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1
    dtype: layers.Dtype = jnp.float32
    param_dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        kernel = self.param("kernel", kernel_init, shape, self.param_dtype)
        gain = self.param("gain", nn.initializers.ones, (self.features, 1, 1, 1), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        kernel = kernel.astype(jnp.promote_types(self.param_dtype, jnp.float32))
        mean, variance = (f(kernel, (0, 1, 2), keepdims=True) for f in (jnp.mean, jnp.var))
        kernel = (kernel - mean) * jax.lax.rsqrt(variance + 1e-5) * gain.reshape(1, 1, 1, -1) / math.sqrt(math.prod(shape[:3]))
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def activation(x: jax.Array) -> jax.Array:
    """An exact GELU that keeps the variance of a normal signal."""
    return nn.gelu(x, approximate=False) * GELU_GAIN


class Stem(nn.Module):
    """Four 3x3 convolutions, the first and the last with stride 2: (n, h, w, c) to (n, h/4, w/4, width)."""

    conv: Callable[..., nn.Module]
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(self.width // 8, 3, 2, name="conv1")(x)
        x = self.conv(self.width // 4, 3, name="conv2")(activation(x))
        x = self.conv(self.width // 2, 3, name="conv3")(activation(x))
        return self.conv(self.width, 3, 2, name="conv4")(activation(x))


class Downsample(nn.Module):
    """The shortcut where a block changes the stride or the width: the mean over 2x2, and a 1x1 convolution."""

    conv: Callable[..., nn.Module]
    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.stride == 2:
            x = nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)
        return self.conv(self.width, 1, name="conv")(x)


class Block(nn.Module):
    """1x1 to half the width, two grouped 3x3, 1x1 up, squeeze-and-excitation; times ALPHA and a gain that starts at 0.

    beta: 1 / the standard deviation expected of the input, for the branch to see 1.
    """

    conv: Callable[..., nn.Module]
    excite: Callable[..., nn.Module]
    width: int
    group_width: int
    stride: int
    beta: float
    drop_path: float
    train: bool
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        middle = self.width // 2
        grouped = partial(self.conv, middle, 3, groups=middle // self.group_width)
        y = activation(x) * self.beta
        if self.stride != 1 or x.shape[-1] != self.width:
            x = Downsample(self.conv, self.width, self.stride, name="downsample")(y)
        y = self.conv(middle, 1, name="conv1")(y)
        y = grouped(stride=self.stride, name="conv2")(activation(y))
        y = grouped(name="conv2b")(activation(y))
        y = self.conv(self.width, 1, name="conv3")(activation(y))
        y = 2 * self.excite(self.width // 2, name="attn_last")(y)  # the gate halves a signal on average
        gain = self.param("skipinit_gain", nn.initializers.zeros, (), self.param_dtype)
        return x + layers.drop_path(y, self.drop_path, self.train) * (ALPHA * gain).astype(y.dtype)


class Head(nn.Module):
    """Dropout and the classifier, initialised as the authors': (n, c) to (n, num_classes)."""

    num_classes: int
    dropout: float
    train: bool
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dropout(self.dropout, deterministic=not self.train)(x)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), **dtypes, name="fc")(x)


class NFNet(layers.Classifier):
    depths: tuple[int, ...] = (1, 2, 6, 3)
    widths: tuple[int, ...] = (256, 512, 1536, 1536)
    group_width: int = 128
    dropout: float = 0.2
    drop_path: float = 0.25
    remat: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv, excite = partial(ScaledConv, **dtypes), partial(layers.SqueezeExcite, **dtypes)
        block = nn.remat(Block) if self.remat else Block

        x = Stem(conv, self.widths[0] // 2, name="stem")(images.astype(self.dtype))
        maps, variance, index = {}, 1.0, 0
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for i in range(depth):
                x = block(
                    conv,
                    excite,
                    width=width,
                    group_width=self.group_width,
                    stride=2 if stage > 0 and i == 0 else 1,
                    beta=variance**-0.5,
                    drop_path=self.drop_path * index / sum(self.depths),
                    train=train,
                    param_dtype=self.param_dtype,
                    name=f"stages_{stage}_{i}",
                )(x)
                # The first block's shortcut normalises as well, so that the variance starts anew.
                variance = (1.0 if i == 0 else variance) + ALPHA**2
                index += 1
            maps[f"stride{4 * 2**stage}"] = x
        x = activation(conv(2 * self.widths[-1], 1, name="final_conv")(x))
        maps["pooled"] = pooling.global_pool(x, self.wide)
        if head:
            classify = Head(self.num_classes, self.dropout, train, self.wide, self.param_dtype, name="head")
            maps["logits"] = classify(maps["pooled"])
        return maps


nfnet_f0 = partial(NFNet, depths=(1, 2, 6, 3), dropout=0.2, native_size=256)
nfnet_f1 = partial(NFNet, depths=(2, 4, 12, 6), dropout=0.3, native_size=320)
