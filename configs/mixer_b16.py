"""Mixer-B/16 from scratch on ImageNet-1k in 60 or 300 epochs.

Target:   300: 76.3 %, 60: 70.5 % top-1 (big_vision, mlp_mixer_i1k.py).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/mixer_b16.py:300 --workdir=runs/mixer_b16
"""

from imagenet_jax import config, recipes

VARIANTS = ("60", "300")


def get_config(epochs="300"):
    c = config.default()
    recipes.mixer_b16(c, epochs)
    c.model.name = "mixer_b_16"
    c.model.dtype = "bfloat16"
    return c
