"""Training recipes: functions that set one published recipe's hyperparameters on a config.

Each names its source. What is not set here keeps the default of config.py. Config files add the model, the data and
the expected result.
"""

from imagenet_jax.config import Config

IMAGENET_AUGMENT = (
    ("random_resized_crop", {"area": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}),
    ("flip", {"probability": 0.5}),
)
CIFAR_AUGMENT = (("pad_crop", {"padding": 4}), ("flip", {"probability": 0.5}))
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def sgd_90ep(c: Config) -> None:
    """ImageNet in 90 epochs as in torchvision's references/classification (IMAGENET1K_V1).

    8 x 32 images a step (so BN statistics over 32), heavy-ball momentum 0.9, lr 0.1 divided by 10 every 30 epochs, weight decay
    1e-4 on every parameter. The five warm-up epochs are not in the source (Goyal et al. 2017, section 2.2, has them):
    without them a larger batch does not start.
    """
    c.augment = IMAGENET_AUGMENT
    c.epochs, c.batch_size, c.bn_group = 90.0, 256, 32
    c.optimizer.nesterov = False
    c.learning_rate, c.lr_batch, c.lr_scaling = 0.1, 256, "linear"
    c.schedule, c.decay_at, c.decay_factor, c.warmup_epochs = "step", (1 / 3, 2 / 3), 0.1, 5.0
    c.weight_decay, c.no_weight_decay = 1e-4, ()


def sgd_cosine(c: Config) -> None:
    """SGD with Nesterov momentum, warm-up and one cosine: the short recipe for small data sets (Loshchilov, Hutter 2017)."""
    c.optimizer.nesterov = True
    c.schedule = "cosine"
    c.label_smoothing = 0.1
