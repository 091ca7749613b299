"""ResNet-50 on batches of 4096 with LARS, MLPerf style; a schedule of 47 epochs.

Target:   75.9 % top-1 after 39 to 42 epochs (10 runs: mlcommons/logging, training_2.0.0/rcps_resnet.json, "resnet_ref_4096").
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/resnet50_lars.py --workdir=runs/resnet50_lars
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.lars(c)
    c.model.name = "resnet50"
    c.model.dtype = "bfloat16"
    return c
