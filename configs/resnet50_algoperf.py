"""ResNet-50 by the trial behind AlgoPerf's target: heavy-ball momentum, 140,000 steps of 1024.

Target:   77.431 % top-1 (algorithmic-efficiency, ImageNet ResNet workload: the median of 20 seeds of that trial), in float32.
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/resnet50_algoperf.py --workdir=runs/resnet50_algoperf
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.algoperf(c)
    c.model.name = "resnet50"
    return c
