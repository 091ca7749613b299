"""python -m imagenet_jax.configs: a table of the recipes that come with the package, and what each asks for and promises."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from imagenet_jax import cli, config, recipes
from imagenet_jax.models import create
from imagenet_jax.models.published import PUBLISHED

DESCRIPTION = """\
List the recipes in configs/ that train on ImageNet: epochs, training images seen, floating point operations to train, and
the top-1 accuracy that their source states. The operations are an estimate: three forward passes of the model's published
multiply-adds for each image, in proportion to its area. Targets are not measurements; the header of a config has its source, and
what was measured."""

IMAGES = {  # of the training split
    "imagenet2012": recipes.IMAGENET_TRAIN,
    "imagenet21k": recipes.IMAGENET21K_TRAIN,
    "imagenet21k_p": recipes.IMAGENET21K_P_TRAIN,
}
SHARES = {"train": 1.0, "train[:99%]": 0.99}


class Row(NamedTuple):
    """One recipe: its name for --config, epochs, images seen, estimated FLOPs to train, and the target of its header."""

    name: str
    epochs: float
    images: float
    flops: float
    target: str


def main(argv: list[str]) -> int:
    """Print the table."""
    cli.parser("configs", DESCRIPTION).parse_args(argv)
    print(f"{'--config':<22}{'epochs':>8}{'images':>10}{'EFLOP':>9}  target")
    for row in rows():
        print(f"{row.name:<22}{row.epochs:>8.4g}{row.images / 1e6:>8.1f} M{row.flops / 1e18:>9.3g}  {row.target}")
    print("\nEFLOP: 1e18 operations to train, estimated. Targets: what the source states; nothing here was measured.")
    return cli.FINISHED


def rows() -> Iterator[Row]:
    """All recipes for ImageNet, by name."""
    for file in config.shipped().values():
        header = file.read_text().split('"""')[1]
        for name in (f"{file.stem}:{v}" for v in config.variants(file)) if config.variants(file) else (file.stem,):
            c = config.plain(config.resolve(config.load(name, [])))
            if c["dataset"] in IMAGES:
                yield _row(name, c, header)


def _row(name: str, c: dict[str, Any], header: str) -> Row:
    seen = c["epochs"] * images(c)
    model = c["model"]["name"]
    area = mean_area(c) / create(model, num_classes=1).native_size ** 2
    flops = seen * 3 * 2 * PUBLISHED[model].gmacs * 1e9 * area
    return Row(name, c["epochs"], seen, flops, _target(header, name.partition(":")[2]) + ", with mirror images" * c["eval_flip"])


def images(c: dict[str, Any]) -> int:
    """Of the training split, of which a recipe may take a part."""
    return round(IMAGES[c["dataset"]] * SHARES[c["train_split"]])


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
