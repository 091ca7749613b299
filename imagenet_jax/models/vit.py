"""ViT (Dosovitskiy et al. 2020, arXiv 2010.11929) and DeiT (Touvron et al. 2020, arXiv 2012.12877).

Names are timm's (`vit_base_patch16_224`, `deit_base_distilled_patch16_224`), with `blocks.0.` written `blocks_0/`. The
settings, beside the sizes; the first five change the function, so weights trained under one value need that value:

pool: "cls", the class token after the last norm, or "gap", the mean of the patches after it (Beyer et al. 2022).
positions: "learnt", a table of native_size / patch squares a side, resized where an image has other sides; or
    "sincos2d", fixed and exact at any size (Beyer et al. 2022, arXiv 2205.01580).
class_token: whether there is one; "cls" needs it.
distilled: a second token with a head of its own; logits are the mean of the two heads, pooled that of the two tokens.
layer_scale: where the learnt factors on both branches of a block start (Touvron et al. 2021, arXiv 2103.17239); 0: none.
dropout: after the positions and after each dense layer of a block but qkv. drop_path: of the last block, see layers.
head_bias: where the bias of each head starts: far below 0 for sigmoid losses over many classes.
remat: compute each block anew in the backward pass instead of keeping what is inside it.
flash: in training, attention by cuDNN, which never stores tokens x tokens numbers (Dao et al. 2022, arXiv 2205.14135): NVIDIA GPUs
    from Ampere on, bfloat16. A layer of ViT-S/16 then moves 4.8 MB an image instead of 22 (compiled for an H100, 256 images). Its
    gradients may be added in any order, so a resumed run need not repeat bit for bit. Not run yet: no GPU was at hand.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.models import layers

POOLS = ("cls", "gap")
POSITIONS = ("learnt", "sincos2d")


class ViT(layers.Classifier):
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    pool: str = "cls"
    positions: str = "learnt"
    class_token: bool = True
    distilled: bool = False
    layer_scale: float = 0.0
    dropout: float = 0.0
    drop_path: float = 0.0
    head_bias: float = 0.0
    remat: bool = False
    flash: bool = False

    @nn.compact
    def forward(self, images: jax.Array, train: bool, head: bool) -> dict[str, jax.Array]:
        self._check_settings()
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = layers.PatchEmbed(self.width, self.patch, **dtypes, name="patch_embed")(images.astype(self.dtype))
        n, height, width, _ = x.shape
        names = ["cls_token"] * self.class_token + ["dist_token"] * self.distilled
        tokens = [self.param(name, layers.normal_init, (1, 1, self.width), self.param_dtype) for name in names]
        tokens = [jnp.broadcast_to(token.astype(self.dtype), (n, 1, self.width)) for token in tokens]
        x = jnp.concatenate([*tokens, x.reshape(n, height * width, self.width)], 1)
        x += self._positions(len(tokens), height, width).astype(self.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        block = nn.remat(Block) if self.remat else Block
        for i, rate in enumerate(layers.drop_path_rates(self.drop_path, self.depth)):
            x = block(self.heads, self.layer_scale, self.dropout, rate, self.flash, train, **dtypes, name=f"blocks_{i}")(x)
        maps = {f"stride{self.patch}": x[:, len(tokens) :].reshape(n, height, width, self.width)}

        dtypes["dtype"] = self.wide
        x = layers.layer_norm(**dtypes, name="norm")(x)
        maps["pooled"] = jnp.mean(x[:, : len(tokens)] if self.pool == "cls" else x[:, len(tokens) :], 1)
        if head:
            bias_init = nn.initializers.constant(self.head_bias)
            dense = partial(nn.Dense, self.num_classes, kernel_init=layers.normal_init, bias_init=bias_init, **dtypes)
            maps["logits"] = dense(name="head")(x[:, 0] if self.distilled else maps["pooled"])
            if self.distilled:
                maps["logits"] = (maps["logits"] + dense(name="head_dist")(x[:, 1])) / 2
        return maps

    def _positions(self, tokens: int, height: int, width: int) -> jax.Array:
        """(1, tokens + height * width, self.width): what is added to the class token and to each patch."""
        if self.positions == "sincos2d":
            return jnp.pad(sincos2d(height, width, self.width)[None], ((0, 0), (tokens, 0), (0, 0)))
        side = self.native_size // self.patch
        shape = (1, tokens + side * side, self.width)
        table = self.param("pos_embed", layers.normal_init, shape, self.param_dtype)
        return resize_positions(table, (side, side), (height, width))

    def _check_settings(self) -> None:
        if self.pool not in POOLS:
            raise unknown("pool", self.pool, POOLS)
        if self.positions not in POSITIONS:
            raise unknown("positions", self.positions, POSITIONS)
        if self.width % self.heads:
            raise UserError(f"width={self.width} does not divide into heads={self.heads}.")
        if self.positions == "sincos2d" and self.width % 4:
            raise UserError(f"positions='sincos2d' needs a width that is a multiple of 4, not {self.width}.")
        if self.pool == "cls" and not self.class_token:
            raise UserError("pool='cls' takes the class token, and class_token=False leaves it out. Use pool='gap'.")
        if self.distilled and self.pool != "cls":
            raise UserError("distilled=True has a head for each of its two tokens and pools no patches. Use pool='cls'.")


class Block(nn.Module):
    """Attention among the tokens, then an MLP on each, both normalised before and added: (n, tokens, width)."""

    heads: int
    layer_scale: float
    dropout: float
    drop_path: float
    flash: bool
    train: bool
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = layers.layer_norm(**dtypes, name="norm1")(x)
        y = Attention(self.heads, self.dropout, self.flash, self.train, **dtypes, name="attn")(y)
        x += layers.drop_path(self._scaled(y, "ls1"), self.drop_path, self.train)
        y = layers.layer_norm(**dtypes, name="norm2")(x)
        y = layers.Mlp(4 * x.shape[-1], self.dropout, self.train, **dtypes, name="mlp")(y)
        return x + layers.drop_path(self._scaled(y, "ls2"), self.drop_path, self.train)

    def _scaled(self, branch: jax.Array, name: str) -> jax.Array:
        return LayerScale(self.layer_scale, self.dtype, self.param_dtype, name=name)(branch) if self.layer_scale else branch


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017); the softmax is float32 or wider.

    UserError: `flash` where cuDNN is not there or has no kernel for this GPU or dtype.
    """

    heads: int
    dropout: float
    flash: bool
    train: bool
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = partial(nn.Dense, kernel_init=layers.normal_init, dtype=self.dtype, param_dtype=self.param_dtype)
        n, tokens, width = x.shape
        qkv = dense(3 * width, name="qkv")(x).reshape(n, tokens, 3, self.heads, width // self.heads)
        try:
            implementation = "cudnn" if self.flash and self.train else "xla"
            y = jax.nn.dot_product_attention(*(qkv[:, :, i] for i in range(3)), implementation=implementation)
        except (RuntimeError, NotImplementedError) as error:  # cuDNN's answers
            if not self.flash:
                raise
            said = str(error).splitlines()[0].rstrip(".")
            raise UserError(
                f"flash=True: {said}. It takes an NVIDIA GPU from Ampere on and dtype bfloat16, here {jnp.dtype(self.dtype).name}. "
                "Set --config.model.settings.flash=False."
            ) from error
        y = dense(width, name="proj")(y.reshape(n, tokens, width))
        return nn.Dropout(self.dropout, deterministic=not self.train)(y)


class LayerScale(nn.Module):
    """A learnt factor for each channel."""

    start: float
    dtype: layers.Dtype
    param_dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gamma = self.param("gamma", nn.initializers.constant(self.start), (x.shape[-1],), self.param_dtype)
        return x * gamma.astype(self.dtype).reshape((1,) * (x.ndim - 1) + gamma.shape)


def resize_positions(table: jax.Array, old_grid: tuple[int, int], new_grid: tuple[int, int], method: str = "bicubic") -> jax.Array:
    """A table of positions (1, t + h*w, d) for `old_grid` (h, w) as one for `new_grid`, like timm's resample_abs_pos_embed.

    The first t rows, those of class and distillation tokens, stay. `method` "bicubic" or "bilinear", both antialiased
    when the grid shrinks; computed in float32, returned in the table's dtype. With equal grids, the table itself.
    """
    if old_grid == new_grid:
        return table
    tokens = table.shape[1] - old_grid[0] * old_grid[1]
    grid = table[:, tokens:].reshape(1, *old_grid, -1).astype(jnp.promote_types(table.dtype, jnp.float32))
    resized = jax.image.resize(grid, (1, *new_grid, grid.shape[-1]), method, antialias=True)
    return jnp.concatenate([table[:, :tokens], resized.reshape(1, -1, grid.shape[-1]).astype(table.dtype)], 1)


def sincos2d(height: int, width: int, channels: int) -> jax.Array:
    """(height * width, channels): sines and cosines of x, then of y, at wavelengths from 2 pi to 2 pi 10^4 ."""
    quarter = channels // 4
    frequencies = 1e4 ** -(jnp.arange(quarter) / (quarter - 1))
    y, x = jnp.mgrid[:height, :width].reshape(2, -1, 1) * frequencies.reshape(1, 1, -1)
    return jnp.concatenate([jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)], 1)


vit_ti_16 = partial(ViT, patch=16, width=192, depth=12, heads=3)
vit_s_16 = partial(ViT, patch=16, width=384, depth=12, heads=6)
vit_b_16 = partial(ViT, patch=16, width=768, depth=12, heads=12)
vit_l_16 = partial(ViT, patch=16, width=1024, depth=24, heads=16)
vit_s_32 = partial(vit_s_16, patch=32)
vit_b_32 = partial(vit_b_16, patch=32)
vit_l_32 = partial(vit_l_16, patch=32)
vit_l_14 = partial(vit_l_16, patch=14)
vit_h_14 = partial(ViT, patch=14, width=1280, depth=32, heads=16)
# DeiT's networks are ViT's; what the paper changed is the training, of which only stochastic depth belongs to the model.
deit_ti_16 = partial(vit_ti_16, drop_path=0.1)
deit_s_16 = partial(vit_s_16, drop_path=0.1)
deit_b_16 = partial(vit_b_16, drop_path=0.1)
deit_ti_16_distilled = partial(deit_ti_16, distilled=True)
deit_s_16_distilled = partial(deit_s_16, distilled=True)
deit_b_16_distilled = partial(deit_b_16, distilled=True)
