"""EfficientNet-Lite0 by Google's recipe for the EfficientNets, which its README points to.

Target:   75.1 % top-1 in float32 (tensorflow/tpu, efficientnet/lite/README.md), the averaged weights.
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/efficientnet_lite0.py --workdir=runs/efficientnet_lite0
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.efficientnet(c)
    c.model.name = "efficientnet_lite0"
    c.mean, c.std = (127 / 255,) * 3, (128 / 255,) * 3
    c.model.dtype = "bfloat16"
    return c
