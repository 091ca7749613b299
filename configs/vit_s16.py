"""ViT-S/16 from scratch on ImageNet-1k in 90 or 300 epochs, plain.

Target:   90: 76.5 %, 300: about 80 % top-1 (arXiv 2205.01580; big_vision, vit_s16_i1k.py).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/vit_s16.py:90 --workdir=runs/vit_s16
"""

from imagenet_jax import config, recipes

VARIANTS = ("90", "300")


def get_config(epochs="90"):
    c = config.default()
    recipes.vit_s16(c, epochs)
    c.model.name = "vit_s_16"
    c.model.dtype = "bfloat16"
    return c
