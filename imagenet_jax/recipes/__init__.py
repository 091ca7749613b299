"""Training recipes: functions that set one published recipe's hyperparameters on a config.

Each names its source. What is not set here keeps the default of config.py. Config files add the model, the data and
the expected result.
"""

# ruff: noqa: F401 - a config calls them recipes.NAME

from imagenet_jax.recipes.basic import (
    CIFAR_AUGMENT,
    CIFAR_MEAN,
    CIFAR_STD,
    HALF,
    IMAGENET21K_P_TRAIN,
    IMAGENET21K_TRAIN,
    IMAGENET_AUGMENT,
    IMAGENET_TRAIN,
    NOT_KERNELS,
    sgd_90ep,
    sgd_cosine,
)
from imagenet_jax.recipes.convnets import EFFICIENTNET_NORMS, convnext, efficientnet, mobilenet_v3, nfnet, regnet
from imagenet_jax.recipes.imagenet21k import miil, transfer, vit_b16_21k
from imagenet_jax.recipes.patches import deit, mixer_b16, vit_s16
from imagenet_jax.recipes.resnets import FFCV_RAMPS, NVIDIA, RSB, algoperf, ffcv, lars, mosaic_mild, nvidia, rsb, torchvision_v2
