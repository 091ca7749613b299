"""ResNet-20 on CIFAR-10, a short run for a laptop.

Target:   at least 80 % top-1 in 40 minutes on two CPU cores (He et al. 2015, table 6: 91.25 % in 164 epochs).
Measured: 81.19 % of the 10,000 test images in 21 min 47 s, two cores of an AMD EPYC, n = 1, on the images re-encoded as
          JPEG (jax 0.10.2, commit 265dbbf; 280-325 img/s while the machine was otherwise idle).
Prepare:  python -m imagenet_jax.prepare folder --name=cifar10_jpeg --train=train.tar --validation=test.tar
Command:  python -m imagenet_jax.main --config=configs/cifar10.py --workdir=runs/cifar10
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.sgd_cosine(c)
    c.dataset = "cifar10_jpeg"
    c.image_size = 32
    c.augment = recipes.CIFAR_AUGMENT
    c.crop_ratio = 1.0
    c.mean, c.std = recipes.CIFAR_MEAN, recipes.CIFAR_STD
    c.model.name = "resnet20"
    c.epochs, c.warmup_epochs = 6.0, 1.0
    c.batch_size, c.learning_rate, c.lr_batch = 128, 0.2, 128
    c.weight_decay = 5e-4
    return c
