"""MLP-Mixer (Tolstikhin et al. 2021, arXiv 2105.01601): MLPs across the patches of an image, and across their channels.

Names are timm's (`mixer_b16_224`), with `blocks.0.` written `blocks_0/`. The weights that mix patches belong to one
image size: that of the images given to `init`.

drop_path: of the last block, see layers. head_bias: where the classifier's bias starts. remat: compute each block anew
in the backward pass.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError
from imagenet_jax.models import layers

# As in the authors' code, where it is Flax's default.
lecun_init = nn.initializers.lecun_normal()


class Mixer(layers.Classifier):
    patch: int = 16
    width: int = 768
    depth: int = 12
    drop_path: float = 0.0
    head_bias: float = 0.0
    remat: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = layers.PatchEmbed(self.width, self.patch, **dtypes, name="stem")(images.astype(self.dtype))
        grid = x.shape
        x = x.reshape(grid[0], -1, self.width)
        self._check_patches(x.shape[1], images)
        block = nn.remat(Block) if self.remat else Block
        for i, rate in enumerate(layers.drop_path_rates(self.drop_path, self.depth)):
            x = block(rate, train, **dtypes, name=f"blocks_{i}")(x)
        maps = {f"stride{self.patch}": x.reshape(grid)}
        dtypes["dtype"] = self.wide
        maps["pooled"] = jnp.mean(layers.layer_norm(**dtypes, name="norm")(x), 1)
        if head:
            bias_init = nn.initializers.constant(self.head_bias)
            dense = nn.Dense(self.num_classes, kernel_init=layers.normal_init, bias_init=bias_init, **dtypes, name="head")
            maps["logits"] = dense(maps["pooled"])
        return maps

    def _check_patches(self, patches: int, images: jax.Array) -> None:
        if self.is_initializing():
            return
        known = self.get_variable("params", "blocks_0")["mlp_tokens"]["fc1"]["kernel"].shape[0]
        if known != patches:
            raise UserError(
                f"These weights of a Mixer mix the {known} patches of the image size that they were made for; images of "
                f"{images.shape[1]} x {images.shape[2]} pixels have {patches}. Keep to one image size."
            )


class Block(nn.Module):
    """x: (n, patches, width). Hidden widths are the paper's: half the width across patches, four times it across channels."""

    drop_path: float
    train: bool
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        mlp = partial(layers.Mlp, kernel_init=lecun_init, **dtypes)
        width = x.shape[-1]
        y = layers.layer_norm(**dtypes, name="norm1")(x).swapaxes(1, 2)
        y = mlp(width // 2, name="mlp_tokens")(y).swapaxes(1, 2)
        x += layers.drop_path(y, self.drop_path, self.train)
        y = mlp(4 * width, name="mlp_channels")(layers.layer_norm(**dtypes, name="norm2")(x))
        return x + layers.drop_path(y, self.drop_path, self.train)


mixer_s_16 = partial(Mixer, patch=16, width=512, depth=8)
mixer_b_16 = partial(Mixer, patch=16, width=768, depth=12)
