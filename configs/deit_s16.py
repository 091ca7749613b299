"""DeiT-S/16, 300 epochs, without a teacher.

Target:   79.856 % top-1 (the published weights in timm results-imagenet.csv, deit_small_patch16_224.fb_in1k).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/deit_s16.py --workdir=runs/deit_s16
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.deit(c)
    c.model.name = "deit_s_16"
    c.model.dtype = "bfloat16"
    return c
