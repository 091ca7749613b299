"""ResNet-18 by "ResNet strikes back": a1 600 epochs, a2 300, a3 100.

Target:   a1: 71.504, a2: 70.634, a3: 68.250 % top-1 at 224 pixels (timm results-imagenet.csv, resnet18.a1_in1k and so on).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/resnet18_rsb.py:a3 --workdir=runs/resnet18_rsb
"""

from imagenet_jax import config, recipes

VARIANTS = tuple(recipes.RSB)


def get_config(procedure="a3"):
    c = config.default()
    recipes.rsb(c, procedure)
    c.model.name = "resnet18"
    c.model.dtype = "bfloat16"
    return c
