"""python -m imagenet_jax.models [PATTERN]: a table of the models that can be trained."""

import fnmatch

import jax

from imagenet_jax import cli
from imagenet_jax.errors import unknown
from imagenet_jax.models import cost, create, list_models

DESCRIPTION = """\
List the models with their parameters and multiply-adds (GMACs, one image forward at the default size, 1000 classes;
10 classes for 32-pixel models). PATTERN selects by name: a part of it, or a glob such as 'resnet?0'."""


def main(argv: list[str]) -> int | None:
    """Print the table; UserError where no name matches."""
    parser = cli.parser("models", DESCRIPTION)
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN")
    pattern = parser.parse_args(argv).pattern
    glob = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    names = [name for name in list_models() if fnmatch.fnmatchcase(name, glob)]
    if not names:
        raise unknown("model", pattern, list_models())
    print(f"{'model':<16}{'parameters':>12}{'GMACs':>9}{'size':>6}")
    for name in names:
        size = create(name, num_classes=10).native_size
        parameters, multiply_adds = cost(create(name, num_classes=10 if size == 32 else 1000))
        print(f"{name:<16}{parameters:>12,}{multiply_adds / 1e9:>9.3f}{size:>6}")
    return cli.FINISHED


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # shapes only: leave an accelerator to whoever trains on it
    cli.run(main)
