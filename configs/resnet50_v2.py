"""ResNet-50 by torchvision's second recipe: 600 epochs, TrivialAugment, mixup, CutMix, an average of the weights.

Target:   80.858 % top-1 (torchvision IMAGENET1K_V2, pytorch/vision#5201), the averaged weights.
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/resnet50_v2.py --workdir=runs/resnet50_v2
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.torchvision_v2(c, norms=r"(^|/)(bn\d|downsample_bn)/")
    c.model.name = "resnet50"
    c.model.dtype = "bfloat16"
    return c
