"""Training recipes: functions that set one published recipe's hyperparameters on a config.

Each names its source. What is not set here keeps the default of config.py. Config files add the model, the data and
the expected result.
"""

import math

from imagenet_jax.config import Config

IMAGENET_TRAIN = 1_281_167  # images

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


# ---- pieces that several recipes share

HALF = (0.5, 0.5, 0.5)  # mean and std of images that become -1 .. 1
NORM_AND_BIAS = (r"(^|/)(bias|scale)$",)
NOT_KERNELS = (r"(?<!/kernel)$",)  # big_vision decays what is called kernel, and nothing else
# timm's rand-m9-mstd0.5-inc1, and its erasing: one rectangle of pixel noise, in a quarter of the images.
RAND_M9 = ("rand_augment_timm", {"magnitude": 9.0, "magnitude_std": 0.5, "interpolation": "bicubic"})
ERASE_25 = ("random_erasing", {"probability": 0.25, "fill": "noise"})


# ---- ResNets


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


# ---- other convolutional networks


def regnet(c: Config) -> None:
    """torchvision's small RegNets (pytorch/vision#4403): 100 epochs of 8 x 128 images, one cosine."""
    c.augment = IMAGENET_AUGMENT
    c.epochs, c.batch_size, c.bn_group = 100.0, 1024, 128
    c.optimizer.update(name="sgd", momentum=0.9, nesterov=False)
    c.learning_rate, c.lr_batch, c.schedule = 0.8, 1024, "cosine"
    c.warmup_epochs, c.warmup_start = 5.0, 0.1
    c.weight_decay, c.no_weight_decay = 5e-5, ()


def mobilenet_v3(c: Config) -> None:
    """torchvision's MobileNetV3 (references/classification): torch's RMSprop, AutoAugment, 600 epochs of 8 x 128 images.

    Its weights are the mean of the last three checkpoints that were better than those before; here they are the last.
    """
    c.augment = (*IMAGENET_AUGMENT, ("auto_augment", {}), ("random_erasing", {"probability": 0.2}))
    c.epochs, c.batch_size, c.bn_group = 600.0, 1024, 128
    c.optimizer.update(name="rmsprop", rho=0.9, eps=0.0316, momentum=0.9, initial=0.0, eps_in_root=False)
    c.learning_rate, c.lr_batch = 0.064, 1024
    c.schedule, c.decay_factor, c.decay_epochs = "staircase", 0.973, 2.0
    c.weight_decay, c.no_weight_decay = 1e-5, ()


def efficientnet(c: Config) -> None:
    """Google's EfficientNets (tensorflow/tpu, models/official/efficientnet/main.py): RMSprop, 350 epochs of 2048, AutoAugment.

    What they call batch normalisation does not decay; biases do. In TensorFlow the rate lies inside the momentum.
    """
    c.augment = (*IMAGENET_AUGMENT, ("auto_augment", {}))
    c.epochs, c.batch_size, c.bn_group = 350.0, 2048, 128
    c.interpolation, c.antialias, c.crop_ratio = "bicubic", False, 224 / (224 + 32)
    c.optimizer.update(name="rmsprop", rho=0.9, eps=1e-3, momentum=0.9)
    c.learning_rate, c.lr_batch = 0.016, 256
    c.schedule, c.decay_factor, c.decay_epochs, c.warmup_epochs = "staircase", 0.97, 2.4, 5.0
    c.weight_decay, c.no_weight_decay = 1e-5, (EFFICIENTNET_NORMS,)
    c.label_smoothing, c.ema_decay = 0.1, 0.9999


EFFICIENTNET_NORMS = r"(?<!classifier)_1/(bias|scale)$"  # in models.efficientnet's paths: the second of every pair


def nfnet(c: Config) -> None:
    """NFNet-F0 (deepmind-research, nfnets/experiment_nfnets.py): 360 epochs of 4096, adaptive clipping, no normalisation.

    Trained at 192 pixels, evaluated at 256. There a batch is mixed half by mixup and half by CutMix; here it is one of them a step.
    RandAugment there has 4 operations at magnitude 5 of 10.
    """
    c.augment = (*IMAGENET_AUGMENT, ("rand_augment", {"num_ops": 4, "magnitude": 5, "bins": 11}))
    c.train_sizes, c.image_size, c.crop_ratio = ((0, 192),), 256, 256 / (256 + 32)
    c.epochs, c.batch_size = 360.0, 4096
    c.optimizer.update(name="sgd", momentum=0.9, nesterov=True)
    c.agc = 0.01
    c.learning_rate, c.lr_batch, c.schedule, c.warmup_epochs = 0.1, 256, "cosine", 5.0
    c.weight_decay, c.no_weight_decay = 2e-5, (r"(bias|gain)$",)
    c.label_smoothing, c.mixup_alpha, c.cutmix_alpha, c.ema_decay = 0.1, 0.2, 1.0, 0.99999


def convnext(c: Config) -> None:
    """ConvNeXt (facebookresearch/ConvNeXt, TRAINING.md and main.py): AdamW, 300 epochs of 4096. Vectors do not decay."""
    c.augment, c.interpolation = (*IMAGENET_AUGMENT, RAND_M9, ERASE_25), "bicubic"
    c.epochs, c.batch_size = 300.0, 4096
    c.optimizer.update(name="adamw")
    c.learning_rate, c.lr_batch, c.lr_scaling = 4e-3, 4096, "linear"
    c.schedule, c.end_learning_rate, c.warmup_epochs = "cosine", 1e-6, 20.0
    c.weight_decay, c.no_weight_decay = 0.05, (r"(bias|scale|gamma)$",)
    c.label_smoothing, c.mixup_alpha, c.cutmix_alpha, c.ema_decay = 0.1, 0.8, 1.0, 0.9999


# ---- networks of patches


def deit(c: Config) -> None:
    """DeiT without distillation (facebookresearch/deit, main.py): AdamW, 300 epochs of 1024, three views of an image.

    Its table is of the raw weights, though it keeps an average. timm's cosine counts from step 0, ours from the warm-up's end.
    """
    c.augment, c.interpolation, c.repeats = (*IMAGENET_AUGMENT, RAND_M9, ERASE_25), "bicubic", 3
    c.epochs, c.batch_size = 300.0, 1024
    c.optimizer.update(name="adamw")
    c.learning_rate, c.lr_batch = 5e-4, 512
    c.schedule, c.end_learning_rate, c.warmup_epochs, c.warmup_start = "cosine", 1e-5, 5.0, 1e-3
    c.weight_decay, c.no_weight_decay = 0.05, (r"(bias|scale|pos_embed|cls_token)$",)
    c.label_smoothing, c.mixup_alpha, c.cutmix_alpha, c.ema_decay = 0.1, 0.8, 1.0, 0.99996


def big_vision(c: Config, epochs: float) -> None:
    """What big_vision's recipes for ImageNet-1k share (google-research/big_vision, configs): Adam on 99 % of the training images.

    Decay 1e-4 there follows the schedule but not the peak of 1e-3: 0.1 here. RandAugment is TensorFlow's at 10 of 10, ours at the
    same share of torchvision's scale. Its first moment is bfloat16 there. Crops there are not antialiased, evaluation is.
    """
    randaugment = ("rand_augment", {"num_ops": 2, "magnitude": 10, "bins": 11})
    crop = ("random_resized_crop", {"area": (0.05, 1.0), "ratio": (3 / 4, 4 / 3)})
    c.augment, c.train_split = (crop, ("flip", {}), randaugment), "train[:99%]"
    c.mean, c.std = HALF, HALF
    c.epochs = epochs
    c.optimizer.update(name="adamw")
    c.clip_norm = 1.0
    c.learning_rate, c.lr_scaling = 1e-3, "none"
    c.weight_decay, c.no_weight_decay = 1e-4 / 1e-3, NOT_KERNELS


def vit_s16(c: Config, epochs: str) -> None:
    """ViT-S/16 by "Better plain ViT baselines" (Beyer et al. 2022, arXiv 2205.01580; big_vision, vit_s16_i1k.py).

    Not as in that file: no hidden layer before the head (rep_size).
    """
    big_vision(c, float(epochs))
    c.model.settings.update(pool="gap", positions="sincos2d", class_token=False)
    c.batch_size = 1024
    c.schedule, c.warmup_epochs = "cosine", 10_000 * 1024 / (0.99 * IMAGENET_TRAIN)
    c.mixup_alpha = 0.2


def mixer_b16(c: Config, epochs: str) -> None:
    """Mixer-B/16 from scratch (big_vision, mlp_mixer_i1k.py); RandAugment there has magnitude 15, beyond our scale of 10."""
    big_vision(c, float(epochs))
    c.model.settings.update(drop_path=0.1, head_bias=-6.9)
    c.batch_size = 4096
    c.schedule, c.end_learning_rate, c.warmup_epochs = "linear", 1e-5, 10_000 * 4096 / (0.99 * IMAGENET_TRAIN)
    c.loss, c.mixup_alpha = "sigmoid", 0.5
