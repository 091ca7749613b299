"""RegNetY-400MF by torchvision's recipe, 100 epochs.

Target:   74.046 % top-1 (torchvision IMAGENET1K_V1).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/regnet_y_400mf.py --workdir=runs/regnet_y_400mf
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.regnet(c)
    c.model.name = "regnet_y_400mf"
    c.model.dtype = "bfloat16"
    return c
