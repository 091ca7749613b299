"""ResNet-50 on ImageNet-1k, 90 epochs, SGD with step decay: the baseline everyone quotes.

Target:   76.1 % top-1 (torchvision IMAGENET1K_V1; three repeated runs of that recipe gave 75.4-75.9, pytorch/vision#5593).
Measured: not run on ImageNet.
Command:  python -m imagenet_jax.main --config=configs/resnet50.py --workdir=runs/r50
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.sgd_90ep(c)
    c.model.name = "resnet50"
    c.model.dtype = "bfloat16"
    return c
