"""`python -m imagenet_jax.report runs/r50 [runs/other weights/b0 ...]`."""

from imagenet_jax import cli
from imagenet_jax.report import write_report

DESCRIPTION = """Write the report of a run: WORKDIR/report.html and its pictures in WORKDIR/report/.

Several directories make a comparison: curves over one another, results side by side, image by image where they
counted the same, and the settings that differ. It is written into the first one, whose details follow. Folders of
weights that `evaluate` counted may be among them; then the page has the evaluations alone. Only files are read."""


def main(argv: list[str]) -> int | None:
    """Write the report and print its path. A directory that is no run raises `UserError`."""
    parser = cli.parser("report", DESCRIPTION)
    parser.add_argument("workdirs", nargs="+", type=cli.path, metavar="WORKDIR", help="directory of a run, or of weights")
    print(write_report(parser.parse_args(argv).workdirs))


if __name__ == "__main__":
    cli.run(main)
