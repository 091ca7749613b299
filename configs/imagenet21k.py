"""ImageNet-21K, to begin from: ResNet-50 by softmax or semantic softmax on its 21K-P, ViT-B/16 by sigmoids on all of it.

Target:   75.6 % semantic top-1 by semantic (of the 11,221 classes of fall11) and, after fine-tuning by a procedure that is not
          published, 82.0 % on ImageNet-1k (Alibaba-MIIL/ImageNet21K, README). softmax, sigmoid: none published for them.
Measured: not run.
Prepare:  softmax and semantic: the official download of ImageNet-21K-P, and weights of ImageNet-1k to begin from:
          python -m imagenet_jax.prepare folder --name=imagenet21k_p --train=imagenet21k_train --validation=imagenet21k_val
          python -m imagenet_jax.convert --model=resnet50 --weights=resnet50-0676ba61.pth --out=weights/resnet50
          sigmoid: python -m imagenet_jax.prepare imagenet21k --source=fall11_whole.tar
Command:  python -m imagenet_jax.main --config=configs/imagenet21k.py:semantic --workdir=runs/imagenet21k

semantic needs WordNet 3.0 (Debian: apt install wordnet-base). A softmax for each depth does not compare classes of different
depths, so top-1 over all of them means little; semantic top-1 is in what `evaluate --split=validation[:50000]` writes, which are as
many images as it keeps logits of.
"""

from imagenet_jax import config, recipes

VARIANTS = ("softmax", "semantic", "sigmoid")


def get_config(loss="semantic"):
    c = config.default()
    if loss == "sigmoid":
        recipes.vit_b16_21k(c)
        c.dataset, c.model.name = "imagenet21k", "vit_b_16"
    else:
        recipes.miil(c, {"softmax": "softmax", "semantic": "semantic_softmax"}[loss])
        c.dataset, c.model.name, c.init_from = "imagenet21k_p", "resnet50", "weights/resnet50"
    c.model.dtype = "bfloat16"
    return c
