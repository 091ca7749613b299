"""python -m imagenet_jax.configs: a table of the recipes that come with the package, and what each asks for and promises."""

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from imagenet_jax import cli, config, recipes
from imagenet_jax.models import cost, create
from imagenet_jax.models.published import PUBLISHED

DESCRIPTION = """\
List the recipes in configs/ for ImageNet and CIFAR-10: epochs, training images seen, floating point operations to train,
hours on three machines, and the top-1 accuracy that their source states. Operations and hours are estimates (`hours` in
configs.py has the formula): not measured, and without input, evaluation and communication. Targets are not measurements
either; the header of a config has its source, and what was measured."""

FOOT = """\
EFLOP: 1e18 operations to train. These and the hours (h) are estimates, of training steps alone: no input, evaluation, network.
Targets are what the source states. Nothing here was measured."""

IMAGES = {  # of a data set's split
    ("imagenet2012", "train"): recipes.IMAGENET_TRAIN,
    ("imagenet2012", "train[:99%]"): round(0.99 * recipes.IMAGENET_TRAIN),
    ("imagenet21k", "train"): recipes.IMAGENET21K_TRAIN,
    ("imagenet21k", "train[:99%]"): round(0.99 * recipes.IMAGENET21K_TRAIN),
    ("imagenet21k_p", "train"): recipes.IMAGENET21K_P_TRAIN,
    ("cifar10_jpeg", "train"): 50_000,
    ("web", "train"): 303_000_000,  # JFT-300M: arXiv 2010.11929, section 4.1
}


class Machine(NamedTuple):
    """Devices, and what each can do in bfloat16: operations and bytes of memory a second."""

    devices: int
    flops: float
    bandwidth: float


MACHINES = {
    "8xH100": Machine(8, 700e12, 3.0e12),  # what large products and copies reach, as assumed in `hours`; NVIDIA: 989, 3.35
    "v5e-16": Machine(16, 197e12, 0.819e12),  # peaks: docs.cloud.google.com/tpu/docs/v5e
    "1xH200": Machine(1, 790e12, 4.3e12),  # likewise
}


class Row(NamedTuple):
    """One recipe: its name for --config, epochs, images seen, FLOPs and hours to train (estimates), and its header's target."""

    name: str
    epochs: float
    images: float
    flops: float
    hours: tuple[float, ...]  # in the order of MACHINES
    target: str


def main(argv: list[str]) -> int:
    """Print the table."""
    cli.parser("configs", DESCRIPTION).parse_args(argv)
    machines = "".join(f"{name + ' h':>10}" for name in MACHINES)
    print(f"{'--config':<22}{'epochs':>8}{'images':>10}{'EFLOP':>9}{machines}  target")
    for row in rows():
        times = "".join(f"{h:>10.2g}" for h in row.hours)
        print(f"{row.name:<22}{row.epochs:>8.4g}{row.images / 1e6:>8.1f} M{row.flops / 1e18:>9.3g}{times}  {row.target}")
    print(f"\n{FOOT}")
    return cli.FINISHED


def rows() -> Iterator[Row]:
    """All recipes for the data sets of IMAGES, by name."""
    for file in config.shipped().values():
        header = file.read_text().split('"""')[1]
        for name in (f"{file.stem}:{v}" for v in config.variants(file)) if config.variants(file) else (file.stem,):
            c = config.plain(config.resolve(config.load(name, [])))
            if (c["dataset"], c["train_split"]) in IMAGES:
                yield _row(name, c, header)


def _row(name: str, c: dict[str, Any], header: str) -> Row:
    images = c["epochs"] * IMAGES[c["dataset"], c["train_split"]]
    model, area = create(c["model"]["name"], num_classes=1), mean_area(c)
    passes = 2 if c["sam_rho"] else 1  # forward and backward, of each image
    share = passes * area / model.native_size**2
    flops = images * share * 3 * 2 * PUBLISHED[c["model"]["name"]].gmacs * 1e9
    times = hours(flops, images * share * traffic(c["model"]["name"]))
    target = _target(header, name.partition(":")[2]) + ", with mirror images" * c["eval_flip"]
    return Row(name, c["epochs"], images, flops, times, target)


@functools.cache
def traffic(model: str) -> float:
    """Bytes of bfloat16 that one image moves through the memory in a training step, at the native size: an estimate.

    Each convolution or product reads its input and writes its output in the forward pass and in both backward passes; what follows
    on it (normalisation, activation, sum) passes over its output three times forward and five times backward. For ResNet-50 that is
    309 MB; counted by hand, with joins and pooling, 341; by XLA for a v5e, 395 (docs/aot.md). Parameters are not counted.
    """
    work = cost(create(model, num_classes=1000))
    return 2 * (3 * (work.read + work.written) + 8 * work.written)


def hours(flops: float, moved: float) -> tuple[float, ...]:
    """(flops / operations a second + bytes moved / bandwidth) / devices on each of MACHINES, as if neither waited for the other.

    An estimate: ResNet-50 at 224 pixels would do 7,250 images/s on an H100, where MLPerf 3.0 shows 6,900 or more (MXNet, 8 x H100,
    13.5 minutes to 75.9 % with evaluations), and 1,995 on a v5e, where XLA's own count of bytes (395 MB) makes it 1,650.
    """
    return tuple((flops / m.flops + moved / m.bandwidth) / m.devices / 3600 for m in MACHINES.values())


def mean_area(c: dict[str, Any]) -> float:
    """Of the training views in pixels, over all epochs."""
    sizes = c["train_sizes"] or [(0, c["image_size"])]
    ends = [begin for begin, _ in sizes[1:]] + [c["epochs"]]
    return sum((end - begin) * side**2 for (begin, side), end in zip(sizes, ends, strict=True)) / c["epochs"]


def _target(header: str, variant: str) -> str:
    """The header's target without its source; of a recipe with variants, that one's."""
    stated = re.search(r"Target:\s*(.*?)\nMeasured:", header, re.DOTALL)
    text = " ".join(stated[1].split()) if stated else ""
    if variant and (own := re.search(rf"\b{variant}: ((?:about )?[\d.]+(?: \+- [\d.]+)?)", text)):
        return f"{own[1]} % top-1"
    return text.split(" (")[0].rstrip(".")


if __name__ == "__main__":
    cli.run(main)
