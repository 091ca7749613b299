"""Other convolutional networks, as those who published them trained them."""

from imagenet_jax.config import Config
from imagenet_jax.recipes.basic import ERASE_25, IMAGENET_AUGMENT, RAND_M9


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
