"""DeiT-B/16, 300 epochs, without a teacher.

Target:   81.980 % top-1 (the published weights in timm results-imagenet.csv, deit_base_patch16_224.fb_in1k).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/deit_b16.py --workdir=runs/deit_b16
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.deit(c)
    c.model.name = "deit_b_16"
    c.model.dtype = "bfloat16"
    return c
