"""python -m imagenet_jax.models [PATTERN]: a table of the models that can be trained."""

import fnmatch

from imagenet_jax import cli
from imagenet_jax.errors import unknown
from imagenet_jax.models import create, list_models
from imagenet_jax.models.published import PUBLISHED
from imagenet_jax.pretrained.names import libraries

DESCRIPTION = """\
List the models: parameters, multiply-adds (GMACs, one image forward at the default size), default image size, and the
top-1 accuracy that was published, with its source, and whose weights `convert` reads. 1000 classes; 10 for the 32-pixel models.
PATTERN selects by name: a part of it, or a glob such as 'resnet?0'."""


def main(argv: list[str]) -> int | None:
    """Print the table; UserError where no name matches."""
    parser = cli.parser("models", DESCRIPTION)
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN")
    pattern = parser.parse_args(argv).pattern
    glob = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    names = [name for name in list_models() if fnmatch.fnmatchcase(name, glob)]
    if not names:
        raise unknown("model", pattern, list_models())
    width = max(map(len, list_models())) + 2
    print(f"{'model':<{width}}{'parameters':>12}{'GMACs':>9}{'size':>6}{'top-1':>8}  {'source':<48}weights of")
    for name in names:
        parameters, gmacs, top1, source = PUBLISHED[name]
        model = create(name, num_classes=1)
        accuracy = "-" if top1 is None else f"{top1:.2f}"
        row = f"{name:<{width}}{parameters:>12,}{gmacs:>9}{model.native_size:>6}{accuracy:>8}  {source:<48}"
        print((row + ", ".join(libraries(model))).rstrip())
    return cli.FINISHED


if __name__ == "__main__":
    cli.run(main)
