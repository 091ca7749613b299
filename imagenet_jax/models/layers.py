"""The layers that all families share, and `Classifier`, the interface that every model has.

Everything is NHWC. Paddings are explicit and symmetric, as in torch: XLA's "SAME" pads a stride-2 convolution of an
even size on one side more than on the other, and imported weights would see images shifted by a pixel. Parameters have
`param_dtype`, activations `dtype`; statistics, pooled features and logits are never narrower than float32.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax.errors import UserError

Dtype = Any

# torchvision's kaiming_normal_(mode="fan_out", nonlinearity="relu"): He et al. 2015 (arXiv 1502.01852), equation 14.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# torch's default for nn.Linear: uniform within +-1/sqrt(fan_in), whose variance is 1/(3 fan_in).
linear_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# timm's trunc_normal_(std=0.02) cuts at +-2, a hundred deviations out: a plain normal. ViT's, DeiT's and ConvNeXt's.
normal_init = nn.initializers.normal(0.02)


class Classifier(nn.Module):
    """What every model takes and gives. A family fills in `forward`.

    images: (n, height, width, channels), any float dtype, already normalised; any size and channel count.
    num_classes: width of the logits. native_size: side in pixels of the images it was designed for.
    dtype, param_dtype: of activations and of parameters. bn_group: see `BatchNorm`.
    """

    num_classes: int = 1000
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    bn_group: int = 0
    native_size: int = 224

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Logits (n, num_classes), float32 or wider. With `train`, the collection "batch_stats" must be mutable."""
        return self.forward(images, train, head=True)["logits"]

    def features(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """The last map at each stride, "stride4" (n, height/4, width/4, c) and so on, and "pooled" (n, d), float32."""
        return self.forward(images, train, head=False)

    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        """The features, and with `head` also "logits": the one method that each family writes."""
        raise NotImplementedError

    first_images = 0  # of the training split, uint8 views as in evaluation, normalised, that `begin` asks for

    def begin(self, variables: Any, images: np.ndarray) -> Any:
        """The variables to start a training with, of those that `init` makes; for a model that looks at `first_images`."""
        return variables

    @property
    def wide(self) -> Dtype:
        """The dtype of pooled features and logits."""
        return jnp.promote_types(self.dtype, jnp.float32)


def conv(
    features: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    bias: bool = False,
    same: bool = False,
    dtype: Dtype,
    param_dtype: Dtype,
    name: str,
    kernel_init: nn.initializers.Initializer = conv_init,
) -> nn.Conv:
    """A square convolution, padded by kernel // 2 on all sides, as torchvision's; `groups` = its inputs: depthwise.

    With `same` it is padded as TensorFlow's "SAME", for weights from there.
    """
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding="SAME" if same else ((kernel // 2, kernel // 2),) * 2,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=kernel_init,
        dtype=dtype,
        param_dtype=param_dtype,
        name=name,
    )


class Kernel(nn.Module):
    """The kernel alone of a 1x1 convolution without bias, (inputs, features), by the name and shape that `conv` gives it."""

    features: int
    param_dtype: Dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = conv_init

    @nn.compact
    def __call__(self, inputs: int) -> jax.Array:
        return self.param("kernel", self.kernel_init, (1, 1, inputs, self.features), self.param_dtype)[0, 0]


def conv_norm(
    conv: Callable[..., nn.Module],
    norm: Callable[..., nn.Module],
    x: jax.Array,
    features: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    act: Callable[[jax.Array], jax.Array] | None = None,
    name: str,
) -> jax.Array:
    """torchvision's Conv2dNormActivation on x: the convolution `name`_0, the normalisation `name`_1, and `act`.

    Call it within a compact method; `conv` and `norm` make the layers.
    """
    x = norm(name=f"{name}_1")(conv(features, kernel, stride, groups=groups, name=f"{name}_0")(x))
    return act(x) if act else x


def linear(
    features: int, fan_in: int, *, bias: float | None = None, dtype: Dtype, param_dtype: Dtype, name: str
) -> nn.Dense:  # fmt: skip
    """A dense layer on `fan_in` inputs, initialised as torch's nn.Linear: kernel and bias within +-1/sqrt(fan_in).

    A `bias` that is given starts at that number.
    """

    def bias_init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
        if bias is not None:
            return jnp.full(shape, bias, dtype)
        return jax.random.uniform(key, shape, dtype, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    return nn.Dense(features, kernel_init=linear_init, bias_init=bias_init, dtype=dtype, param_dtype=param_dtype, name=name)


class SqueezeExcite(nn.Module):
    """Multiply each channel by a gate computed from all channels' means (Hu et al. 2017, arXiv 1709.01507).

    x: (n, h, w, c), result likewise in `dtype`. squeezed: width of the hidden layer. Parameters fc1, fc2: 1x1
    convolutions with bias, as in torchvision. The means are summed in float32.
    """

    squeezed: int
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        mean = jnp.mean(x, (1, 2), keepdims=True, dtype=jnp.promote_types(self.dtype, jnp.float32))
        hidden = self.activation(conv(self.squeezed, 1, bias=True, **dtypes, name="fc1")(mean))
        return x * self.gate(conv(x.shape[-1], 1, bias=True, **dtypes, name="fc2")(hidden))


def layer_norm(*, dtype: Dtype, param_dtype: Dtype, name: str) -> nn.LayerNorm:
    """Normalisation over the channels (Ba et al. 2016, arXiv 1607.06450), epsilon 1e-6; statistics float32 or wider.

    The variance takes a second pass: Linen's default, E[x^2] - E[x]^2, loses digits where the mean is large.
    """
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=dtype, param_dtype=param_dtype, name=name)


class PatchEmbed(nn.Module):
    """One vector for each square of `patch` pixels: (n, h, w, c) to (n, h/patch, w/patch, width).

    Raises UserError where the patches do not fill the image.
    """

    width: int
    patch: int
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        size, height, width = self.patch, *images.shape[1:3]
        if height % size or width % size:
            nearest = " x ".join(str(max(1, round(side / size)) * size) for side in (height, width))
            raise UserError(f"Images of {height} x {width} pixels do not divide into patches of {size}. Use {nearest}.")
        return nn.Conv(
            self.width, (size, size), (size, size), "VALID", dtype=self.dtype, param_dtype=self.param_dtype, name="proj"
        )(images)


class Mlp(nn.Module):
    """Two dense layers on the last axis with an exact GELU between, back to the width of x. Dropout after each, in training."""

    hidden: int
    dropout: float = 0.0
    train: bool = False
    kernel_init: nn.initializers.Initializer = normal_init
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = partial(nn.Dense, kernel_init=self.kernel_init, dtype=self.dtype, param_dtype=self.param_dtype)
        dropout = nn.Dropout(self.dropout, deterministic=not self.train)
        hidden = dropout(nn.gelu(dense(self.hidden, name="fc1")(x), approximate=False))
        return dropout(dense(x.shape[-1], name="fc2")(hidden))


@jax.custom_vjp
def join(branch: jax.Array, shortcut: jax.Array) -> jax.Array:
    """relu(branch + shortcut), the end of a residual block.

    Its gradient reads the result, which the next block needs anyway. XLA alone would compute the sum again, from two arrays.
    """
    return nn.relu(branch + shortcut)


def _join(branch: jax.Array, shortcut: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = join(branch, shortcut)
    return y, y


def _join_gradient(y: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jax.lax.platform_dependent(y, tpu=lambda y: y, default=jax.lax.optimization_barrier)
    gradient = jnp.where(y > 0, gradient, 0)
    return gradient, gradient


join.defvjp(_join, _join_gradient)


def drop_path(branch: jax.Array, rate: float, train: bool) -> jax.Array:
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382), for the branch of a residual block: (n, ...), n examples.

    In training, an example's branch is 0 with probability `rate` and divided by 1 - rate otherwise, from the rng
    "dropout"; else, and with rate 0, it stays as it is and no rng is asked for. Call it within a compact method.
    """
    return nn.Dropout(rate, broadcast_dims=tuple(range(1, branch.ndim)), deterministic=not train)(branch)


def drop_path_rates(rate: float, blocks: int) -> list[float]:
    """A rate for each block, linear in its depth: 0 for the first, `rate` for the last."""
    return [rate * i / max(1, blocks - 1) for i in range(blocks)]


def round_channels(width: float) -> int:
    """`width` to a multiple of 8, at least 8 and at least 0.9 times as many (the code of Sandler et al. 2018)."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8
