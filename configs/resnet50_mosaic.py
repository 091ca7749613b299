"""ResNet-50 in 32.4 epochs by MosaicML's mild recipe: BCE, BlurPool, progressive resizing, averaged weights.

Target:   76.6 % top-1 (composer, train_resnet50_on_aws.md: mild, 0.36 of its 90 epochs).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/resnet50_mosaic.py --workdir=runs/resnet50_mosaic
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.mosaic_mild(c)
    c.model.name = "resnet50"
    c.model.dtype = "bfloat16"
    return c
