"""MobileNetV3-Large by torchvision's recipe: RMSprop, AutoAugment, 600 epochs.

Target:   74.042 % top-1 (torchvision IMAGENET1K_V1).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/mobilenet_v3_large.py --workdir=runs/mobilenet_v3_large
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.mobilenet_v3(c)
    c.model.name = "mobilenet_v3_large"
    c.model.dtype = "bfloat16"
    return c
