"""ResNet-18 on Imagenette (ten easy ImageNet classes, 9,469 images) at 128 px.

Target:   none published for this recipe.
Measured: not run.
Prepare:  python -m imagenet_jax.prepare folder --name=imagenette --train=imagenette2/train --validation=imagenette2/val
Command:  python -m imagenet_jax.main --config=configs/imagenette.py --workdir=runs/imagenette
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.sgd_cosine(c)
    c.dataset = "imagenette"
    c.image_size = 128
    c.augment = recipes.IMAGENET_AUGMENT
    c.model.name = "resnet18"
    c.epochs, c.warmup_epochs = 20.0, 2.0
    c.batch_size, c.learning_rate, c.lr_batch = 64, 0.05, 64
    c.weight_decay = 5e-4
    c.ema_decay = 0.999
    return c
