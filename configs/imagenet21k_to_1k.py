"""ViT-B/16 from ImageNet-21K (configs/imagenet21k.py:sigmoid) to ImageNet-1k at 384 pixels, in 20,000 steps.

Target:   85.49 % top-1 (vision_transformer, README: the best of several ViT-B/16 of ImageNet-21K, with these steps and pixels).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/imagenet21k_to_1k.py --workdir=runs/from21k
          --config.init_from=runs/imagenet21k

Any weights will do: --config.model.name=resnet50 for a ResNet. The positions of a ViT are resized to the larger grid.
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.transfer(c)
    c.init_from = "runs/imagenet21k"
    c.model.name = "vit_b_16"
    c.model.dtype = "bfloat16"
    return c
