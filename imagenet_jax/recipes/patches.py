"""Networks of patches: vision transformers and mixers."""

from imagenet_jax.config import Config
from imagenet_jax.recipes.basic import ERASE_25, HALF, IMAGENET_AUGMENT, IMAGENET_TRAIN, NOT_KERNELS, RAND_M9


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
