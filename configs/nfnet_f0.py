"""NFNet-F0: no normalisation, adaptive clipping, 360 epochs.

Target:   83.6 % top-1 at 256 pixels (arXiv 2102.06171, table 6), the averaged weights.
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/nfnet_f0.py --workdir=runs/nfnet_f0
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.nfnet(c)
    c.model.name = "nfnet_f0"
    c.model.dtype = "bfloat16"
    return c
