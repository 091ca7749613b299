"""CIFAR-10 in 476 steps of 1024 by airbench94 (Keller Jordan 2024, arXiv 2404.00498; cifar10-airbench, legacy/airbench94.py).

Target:   94.01 % top-1 over six views of an image (n = 1000, 3.83 s on an A100), the averaged weights.
Measured: not run on a GPU. Shortened for a CPU (widths 32, 64, 64; 80 steps of 250 on 20,000 images): 55.75 % of 2,000 test images,
          n = 1 (jax 0.10.2, two cores of an AMD EPYC).
Prepare:  python -m imagenet_jax.prepare folder --name=cifar10_jpeg --train=train.tar --validation=test.tar
Command:  python -m imagenet_jax.main --config=configs/cifar10_airbench.py --workdir=runs/cifar10_airbench

Their learning rate of 11.5 and weight decay of 0.0153 are for 1024 examples, the rate without the gain of Nesterov's momentum, the
decay without the rate. Not as there: JPEGs, decoded by the CPU; and the whitening layer's bias learns to the end, there for 3
epochs, which saves them its backward pass.
"""

from imagenet_jax import config, recipes

STEPS, BATCH, MOMENTUM = 476, 1024, 0.85


def get_config():
    c = config.default()
    c.dataset = "cifar10_jpeg"
    c.image_size, c.crop_ratio, c.mean, c.std = 32, 1.0, recipes.CIFAR_MEAN, recipes.CIFAR_STD
    c.augment = (("flip", {"alternating": True}), ("translate", {"padding": 2}))
    c.model.name = "airbench94"
    c.model.dtype = "bfloat16"
    c.frozen = (r"^whiten/kernel$",)
    c.epochs, c.batch_size = STEPS * BATCH / 50_000, BATCH
    c.optimizer.update(name="sgd", momentum=MOMENTUM, nesterov=True)
    c.learning_rate, c.lr_batch = 11.5 / (1 + 1 / (1 - MOMENTUM)), 1024
    c.schedule, c.schedule_points = "piecewise", ((0, 0.2), (109 / STEPS * c.epochs, 1.0), (c.epochs, 0.07))
    c.weight_decay, c.no_weight_decay = 0.0153 / 11.5, ()
    c.label_smoothing = 0.2
    c.lookahead, c.ema_interval = 0.95**5, 5
    c.eval_flip, c.eval_translate, c.eval_interval_epochs = True, 1, 0.0
    return c
