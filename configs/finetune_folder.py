"""Fine-tune published weights on a plain folder of your own, PATH/SPLIT/CLASS/IMAGE, of any number of classes.

Target:   none published for this recipe. Learning rate 0.01, momentum 0.9 and weight decay 1e-4 are the common defaults, says
          Li et al. 2020 (arXiv 2002.11770, introduction), who show that the best rate depends on the data: try 0.001 to 0.1.
Measured: EfficientNet-Lite0 on 6,144 images of CIFAR-10, one epoch at 64 px, learning_rate=0.04 (0.01 at a batch of 64),
          bn_momentum=0.9: 57.95 % of 2,000 test images, from scratch 27.90 %, n = 1 (CPU, jax 0.10.2). Not run for longer.
Prepare:  python -m imagenet_jax.convert --model=efficientnet_lite0 --weights=efficientnet-lite0.pth --out=weights/lite0
Command:  python -m imagenet_jax.main --config=configs/finetune_folder.py --workdir=runs/photos --config.dataset=./photos
          --config.init_from=weights/lite0

Model, image size, crop, interpolation, mean and std come with the weights. A plain folder needs the splits train and validation.
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.sgd_cosine(c)
    c.dataset = "./photos"
    c.init_from = "weights/lite0"
    c.augment = (("random_resized_crop", {"area": (0.35, 1.0)}), ("flip", {"probability": 0.5}))
    c.epochs, c.warmup_epochs = 10.0, 0.5
    c.batch_size, c.learning_rate, c.lr_batch = 64, 0.01, 256
    c.weight_decay = 1e-4
    return c
