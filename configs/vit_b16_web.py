"""ViT-B/16 on a web-scale set of labels of your own, each a yes or no: the recipe for JFT-300M, which is not public.

Dosovitskiy et al. 2020 (arXiv 2010.11929, table 3 and section 4.1): Adam on batches of 4096, 10,000 steps of warm-up, then linear.
Sigmoid, and a head that says no at first, as big_vision's vit_i21k.py. No hidden layer before the head, which they have.

Target:   none, since it depends on the labels.
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/vit_b16_web.py --workdir=runs/vit_b16_web --config.dataset=NAME

Epochs and warm-up are those of 303 million images: for fewer set --config.epochs and --config.warmup_epochs.
"""

from imagenet_jax import config, recipes

IMAGES, BATCH = 303_000_000, 4096


def get_config():
    c = config.default()
    c.dataset = "web"
    c.augment, c.mean, c.std = recipes.IMAGENET_AUGMENT, recipes.HALF, recipes.HALF
    c.model.name = "vit_b_16"
    c.model.dtype = "bfloat16"
    c.model.settings.head_bias = -10.0
    c.epochs, c.batch_size = 7.0, BATCH
    c.optimizer.name = "adamw"
    c.learning_rate, c.lr_scaling = 8e-4, "none"
    c.schedule, c.warmup_epochs = "linear", 10_000 * BATCH / IMAGES
    c.weight_decay, c.no_weight_decay = 0.1, recipes.NOT_KERNELS
    c.loss = "sigmoid"
    return c
