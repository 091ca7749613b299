"""ResNet-50 in 16 to 88 epochs by FFCV's recipe: 160 then 192 pixels, BlurPool.

Target:   16: 73.8, 24: 75.6, 32: 76.6, 40: 77.2, 56: 78.0, 88: 78.4 % top-1, at 256 pixels and with mirror images
          (libffcv/ffcv-imagenet, README). Without mirror images: --config.eval_flip=False; no figure published.
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/resnet50_ffcv.py:16 --workdir=runs/resnet50_ffcv
"""

from imagenet_jax import config, recipes

VARIANTS = tuple(recipes.FFCV_RAMPS)


def get_config(epochs="16"):
    c = config.default()
    recipes.ffcv(c, epochs)
    c.model.name = "resnet50"
    c.model.dtype = "bfloat16"
    return c
