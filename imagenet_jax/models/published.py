"""What others state about each model: `python -m imagenet_jax.models` prints it, tests/models/test_zoo.py holds us to it.

A family that is added brings its rows here, in the order of `ZOO`.
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
HE_TABLE_6 = "CIFAR-10, 1512.03385 table 6"  # its parameters are rounded, and it has no multiply-adds: both are counted here

PUBLISHED = {
    "resnet18": Published(11_689_512, 1.814, 69.758, V1),
    "resnet34": Published(21_797_672, 3.664, 73.314, V1),
    "resnet50": Published(25_557_032, 4.089, 76.130, V1),
    "resnet101": Published(44_549_160, 7.801, 77.374, V1),
    "resnet152": Published(60_192_808, 11.514, 78.312, V1),
    "resnet8": Published(75_290, 0.012, None, ""),
    "resnet20": Published(269_722, 0.041, 91.25, HE_TABLE_6),
    "resnet32": Published(464_154, 0.069, 92.49, HE_TABLE_6),
    "resnet44": Published(658_586, 0.097, 92.83, HE_TABLE_6),
    "resnet56": Published(853_018, 0.125, 93.03, HE_TABLE_6),
    "resnet110": Published(1_727_962, 0.253, 93.57, HE_TABLE_6),
}
