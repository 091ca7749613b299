"""The preprocessing that published weights expect, by naming and family, where their file does not say it.

After torchvision's weight enums (IMAGENET1K_V1), timm's default_cfgs, Hugging Face's processors and Google's EfficientNet code.
Only Google's Lite0 was held against real weights and photographs, so `convert` prints what it chose. What is not listed is the
common recipe: the central 224 of 256, ImageNet's mean and deviation.
"""

from typing import Any

from imagenet_jax.models import Classifier, efficientnet, mixer, mobilenet, nfnet, vit
from imagenet_jax.pretrained.weights import Preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
# Google's EfficientNet-Lite takes (x - 127) / 128; with ImageNet's values these weights lose 10 points.
LITE = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}

# torchvision resizes the short side to the second number and cuts the first, which is the image size, out of the middle.
_TORCHVISION_RESIZE = {
    "efficientnet_b1": 256, "efficientnet_b2": 288, "efficientnet_b3": 320, "efficientnet_b4": 384, "efficientnet_b5": 456,
    "efficientnet_b6": 528, "efficientnet_b7": 600, "efficientnet_v2_s": 384, "efficientnet_v2_m": 480, "efficientnet_v2_l": 480,
    "convnext_tiny": 236, "convnext_small": 230, "convnext_base": 232, "convnext_large": 232,
}  # fmt: skip


def settings(model: Classifier, naming: str) -> dict[str, Any]:
    """Settings that change the function, as whoever writes this naming has them always: transformers pads as TensorFlow there."""
    if naming == "transformers" and isinstance(model, efficientnet.EfficientNet | mobilenet.MobileNet):
        return {"same_padding": True, "bn_epsilon": 1e-3}
    return {}


def preprocessing(name: str, model: Classifier, naming: str) -> Preprocessing:
    """What weights in `naming` for the model `name` most likely expect: to be shown to the user, who may know better."""
    size = model.native_size
    interpolation = "bicubic" if naming in ("timm", "facebookresearch") else "bilinear"
    found = Preprocessing(size, 0.875, interpolation, mean=IMAGENET["mean"], std=IMAGENET["std"])
    if naming == "torchvision" and name in _TORCHVISION_RESIZE:
        found = found._replace(crop_ratio=size / _TORCHVISION_RESIZE[name])
    match model:
        case efficientnet.EfficientNet() if naming == "efficientnet_pytorch":
            values = IMAGENET if model.se else LITE
            return found._replace(crop_ratio=size / (size + 32), interpolation="bicubic", **values)
        case efficientnet.EfficientNet() if naming == "torchvision":
            found = found._replace(interpolation="bilinear" if name in ("efficientnet_v2_s", "efficientnet_v2_m") else "bicubic")
            return found._replace(**HALF) if name == "efficientnet_v2_l" else found
        case vit.ViT() if naming == "timm":  # DeiT kept ImageNet's values, Google's weights have 0.5
            return found._replace(crop_ratio=0.9, **(IMAGENET if name.startswith("deit") else HALF))
        case vit.ViT() if naming == "transformers" and not name.startswith("deit"):
            return found._replace(crop_ratio=1.0, **HALF)  # their processor squeezes the whole image into the square
        case mobilenet.MobileNet() if naming == "transformers":
            return found._replace(**HALF)
        case mixer.Mixer():
            return found._replace(**HALF)
        case nfnet.NFNet():
            return found._replace(crop_ratio=0.9)
    return found
