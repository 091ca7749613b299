"""VGG-16 by torchvision's first recipe at a tenth of its rate.

Target:   71.592 % top-1 (torchvision IMAGENET1K_V1).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/vgg16.py --workdir=runs/vgg16
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.sgd_90ep(c)
    c.model.name = "vgg16"
    c.learning_rate, c.warmup_epochs = 0.01, 0.0
    c.model.dtype = "bfloat16"
    return c
