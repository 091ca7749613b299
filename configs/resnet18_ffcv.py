"""ResNet-18 in 16 to 88 epochs by FFCV's recipe, on one device.

Target:   16: 66.9, 24: 68.8, 32: 70.0, 40: 70.6, 56: 71.3, 88: 72.4 % top-1, at 256 pixels and with mirror images
          (libffcv/ffcv-imagenet, README).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/resnet18_ffcv.py:16 --workdir=runs/resnet18_ffcv
"""

from imagenet_jax import config, recipes

VARIANTS = tuple(recipes.FFCV_RAMPS)


def get_config(epochs="16"):
    c = config.default()
    recipes.ffcv(c, epochs)
    c.model.name = "resnet18"
    c.model.dtype = "bfloat16"
    c.batch_size, c.bn_group = 1024, 1024
    c.learning_rate, c.lr_batch, c.weight_decay = 0.5, 1024, 5e-5
    return c
