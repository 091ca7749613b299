"""ConvNeXt-T, 300 epochs.

Target:   82.066 % top-1 (the published weights in timm results-imagenet.csv, convnext_tiny.fb_in1k).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/convnext_t.py --workdir=runs/convnext_t
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.convnext(c)
    c.model.name = "convnext_tiny"
    c.model.dtype = "bfloat16"
    return c
