"""Prepare a data set: `python -m imagenet_jax.prepare imagenet2012|folder|digits`. The work lies in data/prepare.py."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING

from imagenet_jax import cli
from imagenet_jax.errors import UserError

if TYPE_CHECKING:
    from imagenet_jax.data.prepare import Result

DESCRIPTION = """Write a data set to DATA_DIR/NAME/VERSION in tfds' format (array_record), from where training reads it.

  imagenet2012   from ILSVRC2012_img_train.tar and/or ILSVRC2012_img_val.tar (image-net.org, needs a login)
  folder         from any class-per-folder trees, or .tar files of them
  digits         scikit-learn's 1,797 handwritten digits, 32x32: the quickstart's data set

Exit codes: 0 finished, 2 something is wrong with the input, 3 finished with images left out, which are named."""

SHOWN = 20  # names of left-out or rewritten images on the screen; metadata.json beside the data has them all


def main(argv: list[str]) -> int:
    """Parse, prepare, print what lies on disk. Returns the exit code."""
    flags = _parser().parse_args(argv)
    from imagenet_jax.data import locate, prepare  # after parsing: --help need not wait for tfds

    data_dir = locate.data_dir(flags.data_dir)
    common = {"data_dir": data_dir, "overwrite": flags.overwrite, "jobs": flags.jobs}
    if flags.data_set == "imagenet2012":
        manual_dir = (flags.manual_dir or data_dir / "downloads" / "manual").expanduser()
        result = prepare.prepare_imagenet2012(manual_dir=manual_dir, shuffle=not flags.no_shuffle, **common)
    elif flags.data_set == "folder":
        if flags.source is None and flags.validation_share is not None:
            raise UserError("--validation_share splits what --source names; it says nothing about --train and --validation.")
        inputs = {name: path.expanduser() for name in ("train", "validation", "source") if (path := getattr(flags, name))}
        share = 0.1 if flags.validation_share is None else flags.validation_share
        result = prepare.prepare_folder(name=flags.name, **inputs, validation_share=share, shuffle=not flags.no_shuffle, **common)
    else:
        result = prepare.prepare_digits(**common)
    _show(result)
    return cli.PARTLY if result.left_out and not result.existed else cli.FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("prepare", DESCRIPTION)
    commands = parser.add_subparsers(dest="data_set", required=True, metavar="imagenet2012|folder|digits")

    def command(name: str, description: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, description=description, allow_abbrev=False)
        sub.add_argument("--data_dir", help="where data sets lie; else $TFDS_DATA_DIR, else ~/tensorflow_datasets")
        sub.add_argument("--overwrite", action="store_true", help="prepare again; what is there is deleted first")
        sub.add_argument("--jobs", type=_count, help="threads that check the images; default: one a core")
        return sub

    def no_shuffle(sub: argparse.ArgumentParser) -> None:
        text = "keep the order of the files: faster from a spinning disk; training shuffles anyway"
        sub.add_argument("--no_shuffle", action="store_true", help=text)

    imagenet = command("imagenet2012", "ILSVRC 2012 from its official tar files; one of the two is enough.")
    imagenet.add_argument("--manual_dir", type=pathlib.Path, help="where the tars are; default: DATA_DIR/downloads/manual")
    no_shuffle(imagenet)
    folder = command("folder", "Images in class folders, CLASS/IMAGE: trees, or .tar files of them.")
    folder.add_argument("--name", required=True, help="of the new data set: lower-case letters, digits and _")
    folder.add_argument("--train", type=pathlib.Path, help="tree or tar of the training images")
    folder.add_argument("--validation", type=pathlib.Path, help="tree or tar of the validation images, same classes")
    folder.add_argument("--source", type=pathlib.Path, help="instead of these: one tree or tar, split by a hash of the path")
    folder.add_argument("--validation_share", type=float, help="share of --source for validation; default 0.1")
    no_shuffle(folder)
    command("digits", "scikit-learn's handwritten digits; needs pip install 'imagenet_jax[quickstart]'.")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _show(result: Result) -> None:
    from imagenet_jax.data.builders import imagenet2012
    from imagenet_jax.data.classes import readable

    imagenet = result.name == "imagenet2012"
    state = "was prepared before (--overwrite prepares it again)" if result.existed else "is prepared"
    print(f"{result.name} {result.version} {state}: {result.directory}")
    for split in dict.fromkeys([*(imagenet2012.OFFICIAL if imagenet else ()), *result.images]):
        official = imagenet2012.OFFICIAL.get(split) if imagenet else None
        if split not in result.images:
            print(f"  {split:<11}      none: {imagenet2012.TARS[split]} was not there (add it and use --overwrite)")
            continue
        held = len(result.classes) - len(result.absent.get(split, []))
        print(
            f"  {split:<11}{result.images[split]:>10,} images in {held:,} classes{_compared(result.images[split], held, official)}"
        )
    names = readable(result.classes)
    print(f"  {'classes':<11}{len(names):>10,}: {_printable(', '.join(names[:4]))}{', ...' if len(names) > 4 else ''}")
    _show_rows("rewritten", "stored in another encoding than they came in", result.rewritten, result)
    _show_rows("left out", "not in the data set", result.left_out, result)
    print(f"Use it with --config.dataset={result.name}")


def _show_rows(what: str, meaning: str, rows: list[tuple[str, str]], result: Result) -> None:
    if not rows:
        return
    print(f"  {what:<11}{len(rows):>10,}: {meaning}")
    for name, why in rows[:SHOWN]:
        print(f"    {_printable(name)}: {_printable(why)}")
    if len(rows) > SHOWN:
        print(f"    ... and {len(rows) - SHOWN:,} more, all in {result.directory / 'metadata.json'}")


def _compared(images: int, held: int, official: int | None) -> str:
    if official is None:
        return ""
    same = images == official and held == 1000
    return f"; official: {official:,} in 1,000" + ("" if same else " - DIFFERS")


def _printable(text: str) -> str:
    """Names come from archives: no escape sequence of theirs reaches the terminal."""
    return text if text.isprintable() else ascii(text)


if __name__ == "__main__":
    cli.run(main)
