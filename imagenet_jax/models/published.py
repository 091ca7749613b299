"""What others state about each model: `python -m imagenet_jax.models` prints it, tests/models/test_zoo.py holds us to it.

A family that is added brings its rows here, in the order of `ZOO`. Parameters are held against our own count, GMACs too. The top-1
figures were read again on 2026-11-24: torchvision's in the weight enums of 0.28.0, timm's in results-imagenet.csv, NFNet's and
ConvNeXtV2-Atto's in reports of their papers. Not read again: ResNet-50-D, EfficientNet-Lite, the other ConvNeXtV2, distilled
DeiT-B, and He et al.'s CIFAR-10 models.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """`parameters`: trainable numbers. `gmacs`: 1e9 multiply-adds of one image at the native size, as precise as the source.

    `top1`: ImageNet-1k validation accuracy in percent (one central crop), None where nobody published one; `source`: whose
    weights or which table that is. 1000 classes; the 32-pixel models: 10 classes, CIFAR-10.
    """

    parameters: int
    gmacs: float
    top1: float | None
    source: str


V1 = "torchvision IMAGENET1K_V1"
# Its multiply-adds (407 M for lite0) are 3 to 6 % more than the convolutions', about 3 a value of each map; here those are counted.
LITE = "EfficientNet-Lite README, float32"
NFNET = "2102.06171 table 6"
V2 = "ConvNeXt-V2 README, FCMAE"
# timm counts other work too, so that its 17.58 for ViT-B/16 is torchvision's 17.564: here rounded to what is the same in both.
TIMM = "timm results-imagenet.csv"
AUGREG = f"{TIMM}, augreg_in1k"
AUGREG_21K = f"{TIMM}, augreg_in21k_ft_in1k"
DEIT = f"{TIMM}, fb_in1k"
HE_TABLE_6 = "CIFAR-10, 1512.03385 table 6"  # its parameters are rounded, and it has no multiply-adds: both are counted here

PUBLISHED = {
    "resnet18": Published(11_689_512, 1.814, 69.758, V1),
    "resnet34": Published(21_797_672, 3.664, 73.314, V1),
    "resnet50": Published(25_557_032, 4.089, 76.130, V1),
    "resnet101": Published(44_549_160, 7.801, 77.374, V1),
    "resnet152": Published(60_192_808, 11.514, 78.312, V1),
    "resnet50d": Published(25_576_264, 4.3, 77.16, "1812.01187 table 5"),
    "resnext50_32x4d": Published(25_028_904, 4.230, 77.618, V1),
    "resnext101_32x8d": Published(88_791_336, 16.414, 79.312, V1),
    "resnext101_64x4d": Published(83_455_272, 15.460, 83.246, V1),
    "wide_resnet50_2": Published(68_883_240, 11.398, 78.468, V1),
    "wide_resnet101_2": Published(126_886_696, 22.753, 78.848, V1),
    "vgg11": Published(132_863_336, 7.609, 69.020, V1),
    "vgg13": Published(133_047_848, 11.308, 69.928, V1),
    "vgg16": Published(138_357_544, 15.470, 71.592, V1),
    "vgg19": Published(143_667_240, 19.632, 72.376, V1),
    "vgg11_bn": Published(132_868_840, 7.609, 70.370, V1),
    "vgg13_bn": Published(133_053_736, 11.308, 71.586, V1),
    "vgg16_bn": Published(138_365_992, 15.470, 73.360, V1),
    "vgg19_bn": Published(143_678_248, 19.632, 74.218, V1),
    "densenet121": Published(7_978_856, 2.834, 74.434, V1),
    "regnet_y_400mf": Published(4_344_144, 0.402, 74.046, V1),
    "regnet_y_800mf": Published(6_432_512, 0.834, 76.420, V1),
    "regnet_y_1_6gf": Published(11_202_430, 1.612, 77.950, V1),
    "regnet_y_3_2gf": Published(19_436_338, 3.176, 78.948, V1),
    "regnet_y_8gf": Published(39_381_472, 8.473, 80.032, V1),
    "regnet_y_16gf": Published(83_590_140, 15.912, 80.424, V1),
    "mobilenet_v2": Published(3_504_872, 0.301, 71.878, V1),
    "mobilenet_v3_small": Published(2_542_856, 0.057, 67.668, V1),
    "mobilenet_v3_large": Published(5_483_032, 0.217, 74.042, V1),
    "efficientnet_b0": Published(5_288_548, 0.386, 77.692, V1),
    "efficientnet_b1": Published(7_794_184, 0.687, 78.642, V1),
    "efficientnet_b2": Published(9_109_994, 1.088, 80.608, V1),
    "efficientnet_b3": Published(12_233_232, 1.827, 82.008, V1),
    "efficientnet_b4": Published(19_341_616, 4.394, 83.384, V1),
    "efficientnet_b5": Published(30_389_784, 10.266, 83.444, V1),
    "efficientnet_b6": Published(43_040_704, 19.068, 84.008, V1),
    "efficientnet_b7": Published(66_347_960, 37.746, 84.122, V1),
    "efficientnet_v2_s": Published(21_458_488, 8.366, 84.228, V1),
    "efficientnet_v2_m": Published(54_139_356, 24.582, 85.112, V1),
    "efficientnet_v2_l": Published(118_515_272, 56.08, 85.808, V1),
    "efficientnet_lite0": Published(4_652_008, 0.385, 75.1, LITE),
    "efficientnet_lite1": Published(5_416_680, 0.6, 76.7, LITE),
    "efficientnet_lite2": Published(6_092_072, 0.86, 77.6, LITE),
    "efficientnet_lite3": Published(8_197_096, 1.383, 79.8, LITE),
    "efficientnet_lite4": Published(13_006_568, 2.553, 81.5, LITE),
    "nfnet_f0": Published(71_489_284, 12.38, 83.6, NFNET),
    "nfnet_f1": Published(132_634_256, 35.54, 84.7, NFNET),
    "convnext_tiny": Published(28_589_128, 4.456, 82.520, V1),
    "convnext_small": Published(50_223_688, 8.684, 83.616, V1),
    "convnext_base": Published(88_591_464, 15.355, 84.062, V1),
    "convnext_large": Published(197_767_336, 34.361, 84.414, V1),
    "convnextv2_atto": Published(3_708_400, 0.55, 76.7, V2),
    "convnextv2_femto": Published(5_233_240, 0.78, 78.5, V2),
    "convnextv2_pico": Published(9_066_280, 1.37, 80.3, V2),
    "convnextv2_nano": Published(15_623_800, 2.45, 81.9, V2),
    "convnextv2_tiny": Published(28_635_496, 4.456, 83.0, V2),  # V1's products; the README has 4.47 here, as V1's authors 4.5
    "convnextv2_base": Published(88_717_800, 15.4, 84.9, V2),
    "vit_ti_16": Published(5_717_416, 1.3, 75.454, AUGREG_21K),
    "vit_s_16": Published(22_050_664, 4.6, 78.846, AUGREG),
    "vit_s_32": Published(22_878_952, 1.1, 75.994, AUGREG_21K),
    "vit_b_16": Published(86_567_656, 17.564, 81.072, V1),
    "vit_b_32": Published(88_224_232, 4.409, 75.912, V1),
    "vit_l_16": Published(304_326_632, 61.555, 79.662, V1),
    "vit_l_32": Published(306_535_400, 15.378, 76.972, V1),
    "vit_l_14": Published(304_203_752, 81.0, None, ""),
    "vit_h_14": Published(632_045_800, 167.295, None, ""),
    "deit_ti_16": Published(5_717_416, 1.3, 72.172, DEIT),
    "deit_s_16": Published(22_050_664, 4.6, 79.844, DEIT),
    "deit_b_16": Published(86_567_656, 17.6, 81.992, DEIT),
    "deit_ti_16_distilled": Published(5_910_800, 1.3, 74.500, DEIT),
    "deit_s_16_distilled": Published(22_436_432, 4.6, 81.218, DEIT),
    "deit_b_16_distilled": Published(87_338_192, 17.7, 83.386, DEIT),
    "mixer_s_16": Published(18_528_264, 3.8, None, ""),
    "mixer_b_16": Published(59_880_472, 12.6, 76.602, f"{TIMM}, goog_in21k_ft_in1k"),
    "resnet8": Published(75_290, 0.012, None, ""),
    "resnet20": Published(269_722, 0.041, 91.25, HE_TABLE_6),
    "resnet32": Published(464_154, 0.069, 92.49, HE_TABLE_6),
    "resnet44": Published(658_586, 0.097, 92.83, HE_TABLE_6),
    "resnet56": Published(853_018, 0.125, 93.03, HE_TABLE_6),
    "resnet110": Published(1_727_962, 0.253, 93.57, HE_TABLE_6),
    "airbench94": Published(1_971_640, 0.118, 94.01, "CIFAR-10, airbench README, six views"),  # both counted here
}
