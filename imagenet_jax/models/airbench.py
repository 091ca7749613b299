"""The network of airbench94 (Keller Jordan 2024, arXiv 2404.00498, section 3): CIFAR-10 in seconds.

A 2x2 convolution whose kernel whitens the patches of training images and is frozen (`--config.frozen`; its bias learns), then three
groups of two 3x3 convolutions, GELU everywhere, and logits divided by 9. Convolutions start as the identity of their inputs
(dirac). BatchNorm has a bias and no scale. Names are ours; `features` has no maps, since none lies at a stride (31, 15, 7, 3).

widths: of the three groups. bn_momentum: share of its running statistics that BatchNorm keeps.
bias_gain: BatchNorm's bias is this times its parameter, so that under SGD it learns bias_gain^2 times as fast as other parameters
    and decays like them: the authors' bias_scaler of 64 "scales up learning rate (but not weight decay)".
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.models import batch_norm, layers, pooling

PATCH = 2  # side of the whitened patches
FIRST_IMAGES = 5000  # of the training split, whose patches they are


class Group(nn.Module):
    """Two convolutions, with max-pooling after the first."""

    width: int
    train: bool
    bn_group: int
    bn_momentum: float
    bias_gain: float
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = pooling.max_pool(self._conv("conv1", x), 2, 2, (0, 0))
        x = self._activated("norm1", x)
        return self._activated("norm2", self._conv("conv2", x))

    def _conv(self, name: str, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return layers.conv(self.width, 3, kernel_init=dirac, name=name, **dtypes)(x)

    def _activated(self, name: str, x: jax.Array) -> jax.Array:
        norm = batch_norm.BatchNorm(
            self.bn_group, self.bn_momentum, 1e-12, self.dtype, self.param_dtype, train=self.train, affine=False, name=name
        )
        return nn.gelu(Shift(self.bias_gain, self.param_dtype, name=f"{name}_shift")(norm(x)), approximate=False)


class Shift(nn.Module):
    """x + gain * bias, a channel."""

    gain: float
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        return x + (self.gain * bias).astype(x.dtype).reshape(1, 1, 1, -1)


class Airbench(layers.Classifier):
    """See the module."""

    widths: tuple[int, ...] = (64, 256, 256)
    bn_momentum: float = 0.6
    bias_gain: float = 8.0
    native_size: int = 32
    first_images = FIRST_IMAGES

    def begin(self, variables: Any, images: np.ndarray) -> Any:
        """With the kernel that whitens these images."""
        whiten = {**variables["params"]["whiten"], "kernel": whitening(images).astype(self.param_dtype)}
        return {**variables, "params": {**variables["params"], "whiten": whiten}}

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        filters = 2 * PATCH**2 * images.shape[-1]
        x = nn.Conv(filters, (PATCH, PATCH), padding="VALID", kernel_init=dirac, name="whiten", **dtypes)(images.astype(self.dtype))
        x = nn.gelu(x, approximate=False)
        for i, width in enumerate(self.widths):
            x = Group(width, train, self.bn_group, self.bn_momentum, self.bias_gain, **dtypes, name=f"group{i + 1}")(x)
        if not x.size:
            raise UserError(f"Images of {images.shape[1]} x {images.shape[2]} pixels are too small: pooling leaves nothing.")
        maps = {"pooled": jnp.max(x, (1, 2)).astype(self.wide)}
        if head:
            fc = nn.Dense(self.num_classes, False, self.wide, self.param_dtype, kernel_init=layers.linear_init, name="fc")
            maps["logits"] = fc(maps["pooled"]) / 9
        return maps


airbench94 = Airbench


def dirac(key: jax.Array, shape: tuple[int, ...], dtype: layers.Dtype) -> jax.Array:
    """A kernel (k, k, inputs, outputs) whose first outputs are its inputs; the others are uniform, as torch's Conv2d."""
    side, _, inputs, outputs = shape
    same = np.zeros(shape, np.float32)
    same[side // 2, side // 2, range(min(inputs, outputs)), range(min(inputs, outputs))] = 1
    drawn = layers.linear_init(key, shape, dtype)
    return jnp.where(jnp.arange(outputs).reshape(1, 1, 1, -1) < inputs, jnp.asarray(same, dtype), drawn)


def whitening(images: np.ndarray, epsilon: float = 5e-4) -> np.ndarray:
    """The kernel (2, 2, c, 8c), float32, that whitens the patches of normalised images (n, h, w, c), and its negative.

    Eigenvectors of the patches' second moments, the largest eigenvalue first, divided by the root of eigenvalue + epsilon (the
    authors' init_whitening_conv).
    """
    height, width, channels = images.shape[1] - PATCH + 1, images.shape[2] - PATCH + 1, images.shape[3]
    places = [(i, j) for i in range(PATCH) for j in range(PATCH)]
    patches = np.concatenate([images[:, i : i + height, j : j + width] for i, j in places], -1).reshape(-1, PATCH**2 * channels)
    moments = patches.T.astype(np.float64) @ patches / len(patches)
    values, vectors = np.linalg.eigh(moments)
    kernel = (vectors / np.sqrt(values + epsilon))[:, ::-1]
    return np.concatenate([kernel, -kernel], 1).reshape(PATCH, PATCH, channels, -1).astype(np.float32)
