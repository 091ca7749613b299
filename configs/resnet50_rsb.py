"""ResNet-50 by "ResNet strikes back": a1 600 epochs, a2 300, a3 100.

Target:   a1: 80.4, a2: 79.8, a3: 78.1 % top-1 at 224 pixels (arXiv 2110.00476).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/resnet50_rsb.py:a3 --workdir=runs/resnet50_rsb
"""

from imagenet_jax import config, recipes

VARIANTS = tuple(recipes.RSB)


def get_config(procedure="a3"):
    c = config.default()
    recipes.rsb(c, procedure)
    c.model.name = "resnet50"
    c.model.dtype = "bfloat16"
    return c
