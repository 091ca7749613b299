"""How deep in its model each parameter lies: what layer-wise learning rates count by.

The layers are the residual (or dense) blocks, as in ELECTRA (Clark et al. 2020, arXiv 2003.10555, section 3 and appendix A) and
BEiT (Bao et al. 2021, arXiv 2106.08254), whose published decays are a power a transformer block. Outside of blocks, each
convolution or dense layer is one, with its norm; VGG has only these.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from imagenet_jax.models.layers import Classifier

# The beginning of a path within a block, by the names that families give their blocks.
_BLOCK = re.compile(
    r".*?\b(layer\d+_\d+|blocks_\d+|stages_\d+_\d+|denselayer\d+|block\d+-\d+)/"  # .../blocks_3/attn/qkv/kernel
    r"|features_\d+(_\d+)?/(?=.*/)"  # features_3_1/block_0_0/kernel, but not features_0_0/kernel, a lone convolution
)
_BESIDE = "head_dist/"  # DeiT's second head does not lie above its first


def depths(model: Classifier) -> dict[str, int]:
    """Path of each parameter -> number of layers below its own, in the order in which the forward pass uses them.

    Nothing is computed. ViT-B/16: 0 for the patches, tokens and positions, 1 .. 12 for the blocks, 13 for the norm and the head.
    """
    found: dict[str, int] = {}
    depth, last, has_kernel = 0, "", False
    for path in _in_order_of_use(model):
        block = match[0] if (match := _BLOCK.match(path)) else ""
        is_kernel = path.endswith("/kernel") and not path.startswith(_BESIDE)
        if found and (block != last or (not block and is_kernel and has_kernel)):
            depth, has_kernel = depth + 1, False
        last, has_kernel = block, has_kernel or is_kernel
        found[path] = depth
    return found


def _in_order_of_use(model: Classifier) -> list[str]:
    """Linen's own dicts keep the order in which parameters were made; jax sorts them by name as soon as it handles them."""
    order: list[str] = []

    def init(images: jax.Array) -> Any:
        variables = model.init(jax.random.key(0), images)
        order.extend(_walk(variables["params"]))
        return variables

    jax.eval_shape(init, jax.ShapeDtypeStruct((1, model.native_size, model.native_size, 3), model.dtype))
    return order


def _walk(params: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{name}/")
        else:
            yield prefix + name
