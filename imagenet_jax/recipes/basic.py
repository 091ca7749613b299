"""What recipes begin from: plain SGD, and the augmentations, patterns and numbers that several of them share."""

from imagenet_jax.config import Config

IMAGENET_TRAIN = 1_281_167  # images
IMAGENET21K_TRAIN = 14_197_122 - 51_200  # of fall11_whole, less what big_vision evaluates on; our own split holds back others
IMAGENET21K_P_TRAIN = 11_060_223  # of the official download of 21K-P (10,450 classes), says its processing_instructions.md

IMAGENET_AUGMENT = (
    ("random_resized_crop", {"area": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}),
    ("flip", {"probability": 0.5}),
)
CIFAR_AUGMENT = (("pad_crop", {"padding": 4}), ("flip", {"probability": 0.5}))
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

HALF = (0.5, 0.5, 0.5)  # mean and std of images that become -1 .. 1
NORM_AND_BIAS = (r"(^|/)(bias|scale)$",)
NOT_KERNELS = (r"(?<!/kernel)$",)  # big_vision decays what is called kernel, and nothing else
# timm's rand-m9-mstd0.5-inc1, and its erasing: one rectangle of pixel noise, in a quarter of the images.
RAND_M9 = ("rand_augment_timm", {"magnitude": 9.0, "magnitude_std": 0.5, "interpolation": "bicubic"})
ERASE_25 = ("random_erasing", {"probability": 0.25, "fill": "noise"})


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
