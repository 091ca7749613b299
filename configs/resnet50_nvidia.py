"""ResNet-50 v1.5 by NVIDIA's DeepLearningExamples: 50, 90 or 250 epochs.

Target:   90: 77.12 +- 0.11 %, 250: 78.43 +- 0.11 % top-1 (their README, DGX A100, AMP); 50: 75.81 +- 0.08 % (DGX-2).
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/resnet50_nvidia.py:90 --workdir=runs/resnet50_nvidia
"""

from imagenet_jax import config, recipes

VARIANTS = tuple(recipes.NVIDIA)


def get_config(epochs="90"):
    c = config.default()
    recipes.nvidia(c, epochs)
    c.model.name = "resnet50"
    c.model.dtype = "bfloat16"
    return c
