"""Mixup and CutMix: every image of a batch mixed with another, and its target likewise. On the device, in one pass.

Image i meets image n - 1 - i of the global batch, so the pairs do not depend on how many devices share it. Both kinds are one
formula, weight * image + (1 - weight) * partner: mixup has the same weight everywhere, CutMix 0 in a box and 1 outside; the mean
weight is then the share of the label, which for CutMix is the true area after the box was cut off at the edge.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Mixing = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]  # (key, images, targets) -> (images, targets)


def mix(
    key: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float = 1.0,
    switch: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
    """Mix images (n, h, w, c) and soft targets (n, classes), with one weight for the batch, as timm's Mixup does.

    With `probability`, mixup (Zhang et al. 2017: weight ~ Beta(mixup_alpha, mixup_alpha)) or CutMix (Yun et al. 2019, algorithm
    A1: area outside the box ~ Beta(cutmix_alpha, cutmix_alpha)); where both alphas are above 0, CutMix with probability `switch`.
    One of them must be. Images come back in float32 or wider.
    """
    on_key, cut_key, share_key, box_key = jax.random.split(key, 4)
    if not mixup_alpha or not cutmix_alpha:
        switch = float(cutmix_alpha > 0)
    cut = jax.random.bernoulli(cut_key, switch)
    alpha = jnp.where(cut, cutmix_alpha, mixup_alpha).astype(jnp.float32)
    share = jax.random.beta(share_key, alpha, alpha)
    weight = jnp.where(cut, outside_box(box_key, images.shape[1], images.shape[2], share), share)
    weight = jnp.where(jax.random.bernoulli(on_key, probability), weight, 1)
    return _blend(images, weight[None, :, :, None]), _blend(targets, jnp.mean(weight)[None, None])


def outside_box(key: jax.Array, height: int, width: int, share: jax.Array) -> jax.Array:
    """float32 (height, width): 0 in CutMix's box, 1 outside.

    The box has the image's shape and 1 - `share` of its area, in whole pixels; its centre is uniform in the image, and what then
    lies outside the image is cut off (Yun et al. 2019, equation 2).
    """
    side = jnp.sqrt(1 - share)
    row_key, column_key = jax.random.split(key)

    def covered(key: jax.Array, length: int) -> jax.Array:
        half = jnp.floor(length * side).astype(jnp.int32) // 2
        centre, places = jax.random.randint(key, (), 0, length), jnp.arange(length)
        return (centre - half <= places) & (places < centre + half)

    return 1 - (covered(row_key, height)[:, None] & covered(column_key, width)[None, :]).astype(jnp.float32)


def _blend(x: jax.Array, weight: jax.Array) -> jax.Array:
    wide = jnp.promote_types(x.dtype, jnp.float32)
    weight = weight.astype(wide)
    return weight * x.astype(wide) + (1 - weight) * x[::-1].astype(wide)
