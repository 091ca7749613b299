"""ResNet-18 on ImageNet-1k, 90 epochs, SGD with step decay.

Target:   69.76 % top-1 (torchvision IMAGENET1K_V1, the same recipe as ResNet-50's).
Measured: not run on ImageNet.
Command:  python -m imagenet_jax.main --config=configs/resnet18.py --workdir=runs/r18
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.sgd_90ep(c)
    c.model.name = "resnet18"
    c.model.dtype = "bfloat16"
    return c
