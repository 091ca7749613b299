"""EfficientNetV2-S by torchvision's second recipe: 600 epochs at 300 pixels, evaluated at 384.

Target:   84.228 % top-1 (torchvision IMAGENET1K_V1 of efficientnet_v2_s), the averaged weights.
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/efficientnet_v2_s.py --workdir=runs/efficientnet_v2_s
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.torchvision_v2(c, norms=recipes.EFFICIENTNET_NORMS)
    c.model.name = "efficientnet_v2_s"
    c.train_sizes, c.image_size, c.crop_ratio = ((0, 300),), 384, 1.0
    c.model.dtype = "bfloat16"
    return c
