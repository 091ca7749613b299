"""ImageNet-21K, and from there to 1k."""

from imagenet_jax.config import Config
from imagenet_jax.recipes.basic import IMAGENET21K_TRAIN, IMAGENET_TRAIN, NORM_AND_BIAS
from imagenet_jax.recipes.patches import big_vision


def miil(c: Config, loss: str) -> None:
    """ImageNet-21K-P from weights of ImageNet-1k (Ridnik et al. 2021; Alibaba-MIIL/ImageNet21K, train_semantic_softmax.py).

    Their 64 images a GPU on 8 GPUs: the number is not in their code. Images are squeezed to the square, covered by half a side in
    each direction, and not mirrored; there in a random colour, and the cover may stick out. There the warm-up is a half cosine too,
    and the evaluation squeezed.
    """
    squeezed = ("random_resized_crop", {"area": (1.0, 1.0), "ratio": (1e-3, 1e3)})  # no draw fits, so the whole image it is
    covered = ("random_erasing", {"probability": 1.0, "area": (0.25, 0.25), "ratio": (1.0, 1.0)})
    c.augment = (squeezed, covered, ("rand_augment", {"num_ops": 2, "magnitude": 9, "bins": 31}))
    c.image_size, c.crop_ratio, c.mean, c.std = 224, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    c.epochs, c.batch_size, c.bn_group = 80.0, 512, 64
    c.optimizer.update(name="adam")
    c.learning_rate, c.lr_scaling = 3e-4, "none"
    c.schedule, c.warmup_epochs, c.warmup_start, c.end_learning_rate = "cosine", 8.0, 1 / 20, 3e-4 / 20 / 1e4
    c.weight_decay, c.no_weight_decay = 1e-4, NORM_AND_BIAS
    c.loss, c.label_smoothing = loss, 0.2


def vit_b16_21k(c: Config) -> None:
    """ViT-B/16 on all of ImageNet-21K, a sigmoid for each class (big_vision, vit_i21k.py); so one trains on JFT (Zhai et al. 2022).

    Adam's first moment is bfloat16 there.
    """
    big_vision(c, 300.0)
    c.train_split = "train"
    c.model.settings.update(pool="gap", class_token=False, head_bias=-10.0)
    c.batch_size = 4096
    c.schedule, c.warmup_epochs = "cosine", 10_000 * 4096 / IMAGENET21K_TRAIN
    c.loss, c.mixup_alpha = "sigmoid", 0.2


def transfer(c: Config) -> None:
    """ImageNet-1k from ImageNet-21K at 384 pixels (big_vision, transfer.py): SGD, 20,000 steps of 512, the head from zero."""
    c.augment = (("random_resized_crop", {"area": (0.05, 1.0), "ratio": (3 / 4, 4 / 3)}), ("flip", {}))
    c.train_split, c.image_size, c.crop_ratio = "train[:99%]", 384, 384 / 448
    epoch = 0.99 * IMAGENET_TRAIN / 512
    c.epochs, c.batch_size = 20_000 / epoch, 512
    c.optimizer.update(name="sgd", momentum=0.9, nesterov=False)
    c.clip_norm, c.weight_decay, c.no_weight_decay = 1.0, 0.0, ()
    c.learning_rate, c.lr_scaling, c.schedule, c.warmup_epochs = 0.03, "none", "cosine", 500 / epoch
