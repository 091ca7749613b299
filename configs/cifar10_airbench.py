"""CIFAR-10 in ten epochs of 1024 by airbench94's recipe.

Target:   94.01 % top-1 over six views of an image (cifar10-airbench, legacy/airbench94.py: n = 1000, 3.83 s on an A100).
Measured: not run on a GPU.
Prepare:  python -m imagenet_jax.prepare folder --name=cifar10_jpeg --train=train.tar --validation=test.tar
Command:  python -m imagenet_jax.main --config=configs/cifar10_airbench.py --workdir=runs/airbench
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.airbench94(c)
    c.dataset = "cifar10_jpeg"
    c.model.name = "airbench94"
    c.model.dtype = "bfloat16"
    return c
