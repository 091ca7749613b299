"""ResNets, from 16 epochs to 600."""

import math

from imagenet_jax.config import Config
from imagenet_jax.recipes.basic import IMAGENET_AUGMENT, IMAGENET_TRAIN, NORM_AND_BIAS


def torchvision_v2(c: Config, norms: str) -> None:
    """torchvision's second recipe (pytorch/vision#3995 and #5201): 600 epochs of 8 x 128 images, RA sampler with 4 repeats.

    `norms`: the pattern of normalisation parameters in the model's paths, which alone do not decay. Every 32 steps the average
    moves by (1 - 0.99998) x 8 x 128 x 32 / 600 epochs = 1.09e-3, as train.py computes it; there it starts anew in the warm-up, here
    its cap forgets the start. The rate changes every step, there every epoch.
    """
    erase = ("random_erasing", {"probability": 0.1})
    c.augment, c.repeats = (*IMAGENET_AUGMENT, ("trivial_augment", {}), erase), 4
    c.train_sizes, c.image_size, c.crop_ratio = ((0, 176),), 224, 224 / 232
    c.epochs, c.batch_size, c.bn_group = 600.0, 1024, 128
    c.optimizer.update(name="sgd", momentum=0.9, nesterov=False)
    c.learning_rate, c.lr_batch, c.schedule = 0.5, 1024, "cosine"
    c.warmup_epochs, c.warmup_start = 5.0, 0.01
    c.weight_decay, c.no_weight_decay = 2e-5, (norms,)
    c.label_smoothing, c.mixup_alpha, c.cutmix_alpha = 0.1, 0.2, 1.0
    c.ema_decay, c.ema_interval = 1 - 2e-5 * 1024 * 32 / 600, 32


def rsb(c: Config, procedure: str) -> None:
    """ResNet strikes back (Wightman et al. 2021, arXiv 2110.00476), procedures a1, a2 and a3, as in mmpretrain's configs for them.

    LAMB on batches of 2048 (4 x 512 here for BN; mmpretrain normalises over all of it), binary cross-entropy averaged over the
    classes, and timm's Lamb, which clips to norm 1. Targets of mixed images stay soft; timm can make them 1 above a threshold
    (bce_target_threshold). timm's cosine counts from step 0, ours (as mmpretrain's) from the end of the warm-up.
    """
    epochs, rate, decay, alpha, magnitude, repeats, drop_path, smoothing, size = RSB[procedure]
    randaugment = {"magnitude": magnitude, "magnitude_std": 0.5, "interpolation": "bicubic"}
    c.augment, c.repeats = (*IMAGENET_AUGMENT, ("rand_augment_timm", randaugment)), repeats
    c.train_sizes, c.image_size, c.crop_ratio, c.interpolation = ((0, size),), 224, 0.95, "bicubic"
    c.model.settings.drop_path = drop_path
    c.epochs, c.batch_size, c.bn_group = epochs, 2048, 512
    c.optimizer.update(name="lamb")
    c.clip_norm = 1.0
    c.learning_rate, c.lr_batch, c.lr_scaling = rate, 2048, "sqrt"
    c.schedule, c.end_learning_rate, c.warmup_epochs, c.warmup_start = "cosine", 1e-6, 5.0, 1e-4
    c.weight_decay, c.no_weight_decay = decay, NORM_AND_BIAS
    c.loss, c.label_smoothing, c.mixup_alpha, c.cutmix_alpha = "sigmoid_mean", smoothing, alpha, 1.0


RSB = {  # epochs, rate, weight decay, mixup, RandAugment's magnitude, repeats, stochastic depth, smoothing, training size
    "a1": (600.0, 5e-3, 0.01, 0.2, 7.0, 3, 0.05, 0.1, 224),
    "a2": (300.0, 5e-3, 0.02, 0.1, 7.0, 3, 0.05, 0.0, 224),
    "a3": (100.0, 8e-3, 0.02, 0.1, 6.0, 1, 0.0, 0.0, 160),
}


def ffcv(c: Config, epochs: str) -> None:
    """FFCV's ImageNet recipe (libffcv/ffcv-imagenet, rn50_configs and rn18_configs), for ResNet-50 on 8 x 512 images.

    160 pixels, then 192 from the epoch where its ramp, rounded to multiples of 32, gets there. Blur before strides, evaluation at
    256 pixels with mirror images. "No decay on BN" goes there by names with "bn": downsample layers, and all biases, do decay.
    Not as there: its data are JPEGs shrunk to 500 pixels, half of them at quality 90.
    """
    start, end = FFCV_RAMPS[epochs]
    total = int(epochs)
    ramp = [160 + 32 * min(1, max(0, (epoch - start) / (end - start))) for epoch in range(total)]
    c.augment = IMAGENET_AUGMENT
    c.train_sizes = ((0, 160), (next(e for e, size in enumerate(ramp) if round(size / 32) == 6), 192))
    c.image_size, c.crop_ratio, c.eval_flip = 256, 224 / 256, True
    c.model.settings.blur_pool = True
    c.epochs, c.batch_size, c.bn_group = float(total), 4096, 512
    c.optimizer.update(name="sgd", momentum=0.9, nesterov=False)
    c.learning_rate, c.lr_batch = 1.7, 4096
    c.schedule, c.schedule_points = "piecewise", ((0, 1e-4), (2, 1.0), (total, 0.0))
    c.weight_decay, c.no_weight_decay = 1e-4, (r"(^|/)bn\d/",)
    c.label_smoothing = 0.1


FFCV_RAMPS = {"16": (11, 13), "24": (17, 20), "32": (23, 27), "40": (29, 34), "56": (41, 48), "88": (65, 76)}  # epochs: first, last


def mosaic_mild(c: Config) -> None:
    """MosaicML's "mild" ResNet-50 (mosaicml/examples, resnet50_mild.yaml) at a scale of 0.36: 32.4 epochs.

    Composer's decay follows the schedule but not the peak: divided by the peak here. Sizes grow from half of 176 pixels between 40
    and 80 % of the training, here in six steps of 16 (there of 4, each a compilation). The average has a half-life of 100 steps and
    moves every 20. Not as there: BN scales start at 1, not uniform in 0 .. 1; the max-pooling is not blurred.
    """
    c.augment = IMAGENET_AUGMENT
    c.epochs, c.batch_size, c.bn_group = 32.4, 2048, 256
    sides = (88, 104, 120, 136, 152, 168, 176)
    c.train_sizes = tuple((round(c.epochs * (0.4 + 0.4 * (side - 88) / 88), 2) if side > 88 else 0, side) for side in sides)
    c.image_size, c.crop_ratio = 224, 224 / 232
    c.model.settings.update(blur_pool=True, head_bias=-math.log(1000))
    c.optimizer.update(name="sgdw", momentum=0.875, nesterov=False)
    c.learning_rate, c.lr_batch, c.schedule, c.warmup_epochs = 2.048, 2048, "cosine", 8.0
    c.weight_decay, c.no_weight_decay = 5e-4 / 2.048, ()
    c.loss, c.label_smoothing = "sigmoid", 0.08
    c.ema_decay, c.ema_interval = 0.5 ** (20 / 100), 20


def nvidia(c: Config, epochs: str) -> None:
    """NVIDIA's ResNet-50 v1.5 (DeepLearningExamples, ConvNets/configs.yml): 8 x 256 images; mixup with 250 epochs."""
    c.augment = IMAGENET_AUGMENT
    c.epochs, c.mixup_alpha = NVIDIA[epochs]
    c.batch_size, c.bn_group = 2048, 256
    c.optimizer.update(name="sgd", momentum=0.875, nesterov=False)
    c.learning_rate, c.lr_batch, c.schedule, c.warmup_epochs = 2.048, 2048, "cosine", 8.0
    c.weight_decay, c.no_weight_decay = 1 / 32768, (r"(^|/)(bn\d|downsample_bn)/",)
    c.label_smoothing = 0.1


NVIDIA = {"50": (50.0, 0.0), "90": (90.0, 0.0), "250": (250.0, 0.2)}  # epochs, mixup


def algoperf(c: Config) -> None:
    """The trial that set AlgoPerf's ResNet-50 target (mlcommons/algorithmic-efficiency): heavy ball, 140,000 steps of 8 x 128.

    7,000 steps up, linearly down to a thousandth over 90 % of the others, and constant there. L2 on every parameter.
    """
    c.augment = IMAGENET_AUGMENT
    epoch = IMAGENET_TRAIN / 1024
    c.epochs, c.batch_size, c.bn_group = 140_000 / epoch, 1024, 128
    c.optimizer.update(name="sgd", momentum=0.9275, nesterov=False)
    c.learning_rate, c.lr_batch, c.schedule = 4.13, 1024, "piecewise"
    c.schedule_points = ((0, 0.0), (7_000 / epoch, 1.0), (126_700 / epoch, 1e-3), (140_000 / epoch, 1e-3))
    c.weight_decay, c.no_weight_decay = 5.67e-6, ()
    c.label_smoothing = 0.2


def lars(c: Config) -> None:
    """LARS on batches of 4096, as in MLPerf (mlcommons/logging, rcp_checker/training_2.0.0, "resnet_ref_4096").

    13,137 steps of a quadratic decay after 5 epochs of warm-up. Smoothing and the trust coefficient are not in that file: 0.1, and
    the 1e-3 of You et al. 2017.
    """
    c.augment = IMAGENET_AUGMENT
    c.batch_size, c.bn_group = 4096, 64
    c.epochs = 5 + 13_137 * 4096 / IMAGENET_TRAIN
    c.optimizer.update(name="lars", momentum=0.9, trust=1e-3)
    c.learning_rate, c.lr_batch = 10.0, 4096
    c.schedule, c.decay_power, c.warmup_epochs = "poly", 2.0, 5.0
    c.weight_decay, c.no_weight_decay = 2e-4, NORM_AND_BIAS
    c.label_smoothing = 0.1
