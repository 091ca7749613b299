"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545) and ConvNeXt V2 (Woo et al. 2023, arXiv 2301.00808).

Names are timm's, since torchvision has no V2: `stages.0.blocks.0.mlp.fc1.` is written `stages_0/blocks_0/mlp/fc1/`.
Like torch, a side that does not divide by its stride loses what is left over. The settings, beside the sizes:

drop_path: of the last block, see layers; the defaults are those of the papers' trainings on ImageNet-1k.
layer_scale: where the learnt factors on the branches start; 0: none, as in V2. grn: V2's normalisation in the MLP.
remat: compute each block anew in the backward pass instead of keeping what is inside it.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.models import layers, pooling


class ConvNeXt(layers.Classifier):
    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    layer_scale: float = 1e-6
    grn: bool = False
    drop_path: float = 0.0
    remat: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = patches(self.widths[0], 4, **dtypes, name="stem_0")(images.astype(self.dtype))
        x = layers.layer_norm(**dtypes, name="stem_1")(x)
        rates = layers.drop_path_rates(self.drop_path, sum(self.depths))
        maps = {}
        for i, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            block = partial(nn.remat(Block) if self.remat else Block, layer_scale=self.layer_scale, grn=self.grn, train=train)
            before = sum(self.depths[:i])
            stage = Stage(width, i > 0, tuple(rates[before : before + depth]), block, **dtypes, name=f"stages_{i}")
            x = maps[f"stride{4 * 2**i}"] = stage(x)
        return maps | Head(self.num_classes, self.wide, self.param_dtype, name="head")(x, head)


def patches(width: int, size: int, *, dtype: layers.Dtype, param_dtype: layers.Dtype, name: str) -> nn.Conv:
    """A convolution over squares of `size` that do not overlap."""
    shape, init = (size, size), layers.normal_init
    return nn.Conv(width, shape, shape, "VALID", kernel_init=init, dtype=dtype, param_dtype=param_dtype, name=name)


class Stage(nn.Module):
    """Half the size where `downsample`, then a block for each of `rates`: (n, h, w, c) to (n, h or h/2, ..., width)."""

    width: int
    downsample: bool
    rates: tuple[float, ...]
    block: partial
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.downsample:
            x = layers.layer_norm(**dtypes, name="downsample_0")(x)
            x = patches(self.width, 2, **dtypes, name="downsample_1")(x)
        for i, rate in enumerate(self.rates):
            x = self.block(drop_path=rate, **dtypes, name=f"blocks_{i}")(x)
        return x


class Block(nn.Module):
    """A depthwise 7x7 convolution and an MLP on each pixel, added to x: (n, h, w, c)."""

    layer_scale: float
    grn: bool
    drop_path: float
    train: bool
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = x.shape[-1]
        y = layers.conv(width, 7, groups=width, bias=True, kernel_init=layers.normal_init, **dtypes, name="conv_dw")(x)
        y = layers.layer_norm(**dtypes, name="norm")(y)
        y = Mlp(self.grn, **dtypes, name="mlp")(y)
        if self.layer_scale:
            gamma = self.param("gamma", nn.initializers.constant(self.layer_scale), (width,), self.param_dtype)
            y *= gamma.astype(self.dtype).reshape(1, 1, 1, width)
        return x + layers.drop_path(y, self.drop_path, self.train)


class Mlp(nn.Module):
    """Four times as wide and back, with an exact GELU, and GRN with `grn`, between: (n, h, w, c)."""

    grn: bool
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = partial(nn.Dense, kernel_init=layers.normal_init, dtype=self.dtype, param_dtype=self.param_dtype)
        y = nn.gelu(dense(4 * x.shape[-1], name="fc1")(x), approximate=False)
        if self.grn:
            y = GlobalResponseNorm(self.dtype, self.param_dtype, name="grn")(y)
        return dense(x.shape[-1], name="fc2")(y)


class GlobalResponseNorm(nn.Module):
    """x + scale * x * (the L2 norm of its channel's map / the mean of all channels' norms) + bias (V2, section 4)."""

    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, wide = x.shape[-1], jnp.promote_types(self.dtype, jnp.float32)
        scale, bias = (self.param(name, nn.initializers.zeros, (channels,), self.param_dtype) for name in ("scale", "bias"))
        scale, bias = scale.reshape(1, 1, 1, channels), bias.reshape(1, 1, 1, channels)
        # A channel that is zero everywhere has the gradient 0, as in torch; the square root alone would give NaN.
        norm = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x.astype(wide)), (1, 2), keepdims=True), 1e-24))
        return (x + scale * (x * (norm / (jnp.mean(norm, -1, keepdims=True) + 1e-6))) + bias).astype(self.dtype)


class Head(nn.Module):
    """The mean over the map, normalised, as "pooled" (n, c), and with `head` the "logits"; both in `dtype`."""

    num_classes: int
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        pooled = layers.layer_norm(**dtypes, name="norm")(pooling.global_pool(x, self.dtype))
        if not head:
            return {"pooled": pooled}
        return {"pooled": pooled, "logits": nn.Dense(self.num_classes, kernel_init=layers.normal_init, **dtypes, name="fc")(pooled)}


convnext_tiny = partial(ConvNeXt, depths=(3, 3, 9, 3), widths=(96, 192, 384, 768), drop_path=0.1)
convnext_small = partial(ConvNeXt, depths=(3, 3, 27, 3), widths=(96, 192, 384, 768), drop_path=0.4)
convnext_base = partial(ConvNeXt, depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024), drop_path=0.5)
convnext_large = partial(ConvNeXt, depths=(3, 3, 27, 3), widths=(192, 384, 768, 1536), drop_path=0.5)

v2 = partial(ConvNeXt, layer_scale=0.0, grn=True)
convnextv2_atto = partial(v2, depths=(2, 2, 6, 2), widths=(40, 80, 160, 320), drop_path=0.1)
convnextv2_femto = partial(v2, depths=(2, 2, 6, 2), widths=(48, 96, 192, 384), drop_path=0.1)
convnextv2_pico = partial(v2, depths=(2, 2, 6, 2), widths=(64, 128, 256, 512), drop_path=0.1)
convnextv2_nano = partial(v2, depths=(2, 2, 8, 2), widths=(80, 160, 320, 640), drop_path=0.1)
convnextv2_tiny = partial(v2, depths=(3, 3, 9, 3), widths=(96, 192, 384, 768), drop_path=0.2)
convnextv2_base = partial(v2, depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024), drop_path=0.1)
