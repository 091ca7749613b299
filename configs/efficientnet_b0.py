"""EfficientNet-B0 by Google's recipe: RMSprop, AutoAugment, 350 epochs.

Target:   77.26 % top-1 (Google's weights with AutoAugment as MMClassification evaluates them), the averaged weights.
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/efficientnet_b0.py --workdir=runs/efficientnet_b0
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.efficientnet(c)
    c.model.name = "efficientnet_b0"
    c.model.settings.update(same_padding=True, bn_epsilon=1e-3, bn_momentum=0.99)
    c.model.dtype = "bfloat16"
    return c
