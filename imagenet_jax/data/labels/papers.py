"""The test sets that papers report beside ImageNet's validation split: their names here, and what their authors publish."""

from typing import NamedTuple

SPLIT = "test"


class Published(NamedTuple):
    """A set as its authors publish it."""

    version: str  # tfds', where its catalogue has the same images
    images: int
    classes: int
    file: str  # what is downloaded; gunzip or unzip it first
    homepage: str


V2, C = "https://github.com/modestyachts/ImageNetV2", "https://github.com/hendrycks/robustness"
ADVERSARIAL = "https://github.com/hendrycks/natural-adv-examples"
SETS = {
    "imagenet_v2/matched-frequency": Published("3.0.0", 10_000, 1000, "imagenetv2-matched-frequency.tar", V2),
    "imagenet_v2/threshold-0.7": Published("3.0.0", 10_000, 1000, "imagenetv2-threshold0.7.tar", V2),
    "imagenet_v2/topimages": Published("3.0.0", 10_000, 1000, "imagenetv2-top-images.tar", V2),
    "imagenet_a": Published("0.1.0", 7_500, 200, "imagenet-a.tar", ADVERSARIAL),
    "imagenet_r": Published("0.2.0", 30_000, 200, "imagenet-r.tar", "https://github.com/hendrycks/imagenet-r"),
    "imagenet_sketch": Published("1.0.0", 50_889, 1000, "sketch/", "https://github.com/HaohanWang/ImageNet-Sketch"),
}
CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "frost",
    "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")  # published too, but for choosing settings, not for mCE
SEVERITIES = range(1, 6)
SETS |= {
    f"imagenet_c/{corruption}_{severity}": Published("1.0.0", 50_000, 1000, "noise.tar, blur.tar, weather.tar, digital.tar", C)
    for corruption in CORRUPTIONS
    for severity in SEVERITIES
}
# What `prepare` takes: all parts of ImageNet-C at once.
TO_PREPARE = tuple(dict.fromkeys("imagenet_c" if name.startswith("imagenet_c/") else name for name in SETS))
