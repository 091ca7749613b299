"""ViT-B/16 on a web-scale set of labels of your own, sigmoid: the recipe for JFT-300M, which is not public.

Target:   none, since it depends on the labels.
Measured: not run.
Command:  python -m imagenet_jax.main --config=configs/vit_b16_web.py --workdir=runs/vit_b16_web --config.dataset=web
          --config.epochs=30 --config.warmup_epochs=1
"""

from imagenet_jax import config, recipes


def get_config():
    c = config.default()
    recipes.web(c)
    c.dataset = "web"
    c.model.name = "vit_b_16"
    c.model.dtype = "bfloat16"
    return c
