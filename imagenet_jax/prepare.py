"""Prepare a data set: `python -m imagenet_jax.prepare imagenet2012|imagenet21k|folder|...|verify`. The work lies in data/."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING

from imagenet_jax import cli
from imagenet_jax.data.labels import papers
from imagenet_jax.errors import UserError

if TYPE_CHECKING:
    from imagenet_jax.data.preparing.prepare import Result
    from imagenet_jax.data.preparing.verify import Verified
    from imagenet_jax.data.storage.encoding import Encoding

DESCRIPTION = """Write a data set to DATA_DIR/NAME[/CONFIG]/VERSION in tfds' format (array_record), from where training reads it.

  imagenet2012   from ILSVRC2012_img_train.tar and/or ILSVRC2012_img_val.tar (image-net.org, needs a login)
  imagenet21k    from winter21_whole.tar or fall11_whole.tar: one tar of one WNID.tar a class, or a folder of these
  folder         from any class-per-folder trees, or .tar files of them
  imagenet_v2/matched-frequency imagenet_v2/threshold-0.7 imagenet_v2/topimages imagenet_a imagenet_r imagenet_sketch imagenet_c
                 the test sets of `evaluate --suite=paper`, from --source, as their authors publish them (unzipped)
  digits         scikit-learn's 1,797 handwritten digits, 32x32: the quickstart's data set
  verify         reads a prepared data set and proves that it is whole, or has the pixels of another one

Images are stored byte for byte, unless --short_side, --max_side or --restart_markers ask for something else; that is then part of
the data set's name (CONFIG). A run that was interrupted goes on when the same command is given again.

Exit codes: 0 finished, 1 something could not be read or is not as it should be, 2 something is wrong with the input, 3 finished
with images left out, which are named."""

IMAGENET21K = """ImageNet-21K, classes by wnid. The archive has no validation split: of the n images of a class, the
min(50, n // 10) whose file names have the smallest sha256 are put into one."""

SHOWN = 20  # names of left-out or rewritten images on the screen; metadata.json beside the data has them all


def main(argv: list[str]) -> int:
    """Parse, prepare, print what lies on disk. Returns the exit code."""
    flags = _parser().parse_args(argv)
    from imagenet_jax.data.preparing import prepare
    from imagenet_jax.data.storage import locate  # after parsing: --help need not wait for tfds

    data_dir = locate.local_data_dir(flags.data_dir)
    if flags.command == "verify":
        return _verify(flags, data_dir)
    common = {"data_dir": data_dir, "overwrite": flags.overwrite, "jobs": flags.jobs}
    if flags.command == "digits":
        result = prepare.prepare_digits(**common)
    elif flags.command in papers.TO_PREPARE:
        results = prepare.prepare_robustness(name=flags.command, source=flags.source, **common)
        for result in results:
            _show(result)
        return cli.PARTLY if any(r.left_out and not r.existed for r in results) else cli.FINISHED
    else:
        common["encoding"] = _encoding(flags)
    if flags.command == "imagenet2012":
        manual_dir = flags.manual_dir or data_dir / "downloads" / "manual"
        result = prepare.prepare_imagenet2012(manual_dir=manual_dir, shuffle=not flags.no_shuffle, **common)
    elif flags.command == "imagenet21k":
        result = prepare.prepare_imagenet21k(source=flags.source, **common)
    elif flags.command == "folder":
        if flags.source is None and flags.validation_share is not None:
            raise UserError("--validation_share splits what --source names; it says nothing about --train and --validation.")
        inputs = {name: path for name in ("train", "validation", "source") if (path := getattr(flags, name))}
        share = 0.1 if flags.validation_share is None else flags.validation_share
        result = prepare.prepare_folder(name=flags.name, **inputs, validation_share=share, shuffle=not flags.no_shuffle, **common)
    _show(result)
    return cli.PARTLY if result.left_out and not result.existed else cli.FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("prepare", DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="DATASET|verify")

    def command(name: str, description: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, description=description, allow_abbrev=False)
        sub.add_argument("--data_dir", help="where data sets lie; else $TFDS_DATA_DIR, else ~/tensorflow_datasets")
        sub.add_argument("--jobs", type=_count, help="threads that read the images; default: one a core")
        return sub

    def overwrite(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--overwrite", action="store_true", help="prepare again; what is there is deleted first")

    def encoding(sub: argparse.ArgumentParser) -> None:
        one = sub.add_mutually_exclusive_group()
        one.add_argument("--short_side", type=_count, metavar="PIXELS", help="re-encode: shorter side at most this long")
        one.add_argument("--max_side", type=_count, metavar="PIXELS", help="re-encode: longer side at most this long")
        sub.add_argument("--quality", type=_count, help="of the re-encoded JPEGs (chroma 4:2:0); default 90")
        text = "put restart markers into JPEGs, so that crops decode faster; no pixel changes; needs 'imagenet_jax[prepare]'"
        sub.add_argument("--restart_markers", action="store_true", help=text)

    def no_shuffle(sub: argparse.ArgumentParser) -> None:
        text = "keep the order of the files: faster from a spinning disk; training shuffles anyway"
        sub.add_argument("--no_shuffle", action="store_true", help=text)

    imagenet = command("imagenet2012", "ILSVRC 2012 from its official tar files; one of the two is enough.")
    imagenet.add_argument("--manual_dir", type=cli.path, help="where the tars are; default: DATA_DIR/downloads/manual")
    no_shuffle(imagenet)
    large = command("imagenet21k", IMAGENET21K)
    large.add_argument("--source", type=cli.path, required=True, help="the tar of WNID.tar files, or a folder of them")
    folder = command("folder", "Images in class folders, CLASS/IMAGE: trees, or .tar files of them.")
    folder.add_argument("--name", required=True, help="of the new data set: lower-case letters, digits and _")
    folder.add_argument("--train", type=cli.path, help="tree or tar of the training images")
    folder.add_argument("--validation", type=cli.path, help="tree or tar of the validation images, same classes")
    folder.add_argument("--source", type=cli.path, help="instead of these: one tree or tar, split by a hash of the path")
    folder.add_argument("--validation_share", type=float, help="share of --source for validation; default 0.1")
    no_shuffle(folder)
    for sub in (imagenet, large, folder):
        encoding(sub)
    digits = command("digits", "scikit-learn's handwritten digits; needs pip install 'imagenet_jax[quickstart]'.")
    others = [command(name, f"{name} as its authors publish it, for `evaluate --suite=paper`.") for name in papers.TO_PREPARE]
    for sub in others:
        sub.add_argument("--source", type=cli.path, required=True, help="the folder of it, or a tar")
    for sub in (imagenet, large, folder, digits, *others):
        overwrite(sub)
    check = command("verify", "Read every record of a prepared data set; compare its pixels, exactly, where there is something to.")
    check.add_argument("dataset", help="NAME[/CONFIG][:VERSION], such as imagenet2012/rst")
    one = check.add_mutually_exclusive_group()
    one.add_argument("--against", metavar="DATASET", help="the same images as they came, such as imagenet2012")
    one.add_argument("--manual_dir", type=cli.path, help="the same, for imagenet2012: the folder of its tars")
    one.add_argument("--source", type=cli.path, help="the same, for imagenet21k: its archive or folder of tars")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _encoding(flags: argparse.Namespace) -> Encoding:
    from imagenet_jax.data.storage import encoding

    return encoding.choose(flags.short_side, flags.max_side, flags.quality, flags.restart_markers)


def _show(result: Result) -> None:
    from imagenet_jax.data.labels.classes import readable
    from imagenet_jax.data.preparing.builders import imagenet2012

    imagenet, published = result.name.split("/")[0] == "imagenet2012", papers.SETS.get(result.name)
    expected = imagenet2012.OFFICIAL if imagenet else {papers.SPLIT: published.images} if published else {}
    state = "was prepared before (--overwrite prepares it again)" if result.existed else "is prepared"
    print(f"{result.name} {result.version} {state}: {result.directory}")
    for split in dict.fromkeys([*expected, *result.images]):
        official = (expected[split], published.classes if published else 1000) if split in expected else None
        if split not in result.images:
            print(f"  {split:<11}      none: {imagenet2012.TARS[split]} was not there (add it and use --overwrite)")
            continue
        held = len(result.classes) - len(result.absent.get(split, []))
        print(
            f"  {split:<11}{result.images[split]:>10,} images in {held:,} classes{_compared(result.images[split], held, official)}"
        )
    names = readable(result.classes)
    print(f"  {'classes':<11}{len(names):>10,}: {cli.printable(', '.join(names[:4]))}{', ...' if len(names) > 4 else ''}")
    where = str(result.directory / "metadata.json")
    came = "came as something else than grey or RGB JPEG" if result.encoding.reencodes else "not stored in the format they came in"
    _show_rows("rewritten", came, result.rewritten, where)
    _show_rows("left out", "not in the data set", result.left_out, where)
    _show_encoding(result, where)
    print("evaluate --suite=paper counts it" if published else f"Use it with --config.dataset={result.name}")


def _show_encoding(result: Result, where: str) -> None:
    """What the user's choice bought: sizes of all images, the rest on a sample."""
    if result.encoding.config is None:
        return
    print(f"  {'stored':<11}{sum(result.images.values()):>10,}: {result.encoding}")
    before, after = (sum(split[key] for split in result.image_bytes.values()) for key in ("before", "after"))
    images = sum(result.images.values())
    print(f"    {before / images:,.0f} bytes an image before, {after / images:,.0f} after: {after / before:.3f} of it")
    if trade := result.trade:
        print(f"    on a sample of {trade.images:,} images: decoded in full {trade.speed:.2f} times as fast")
        if result.encoding.restart_markers:
            print(f"      training crops decoded {trade.crops:.2f} times as fast, cut out at the markers (resize not counted)")
        if trade.psnr is not None:
            print(f"      pixels {trade.psnr:.1f} dB to the original at that size (median PSNR)")
    _show_rows("unmarked", "without restart markers", result.unmarked, where)


def _show_rows(what: str, meaning: str, rows: list[tuple[str, str]], where: str) -> None:
    if not rows:
        return
    print(f"  {what:<11}{len(rows):>10,}: {meaning}")
    for name, why in rows[:SHOWN]:
        print(f"    {cli.printable(name)}: {cli.printable(why)}")
    if len(rows) > SHOWN:
        print(f"    ... and {len(rows) - SHOWN:,} more, all in {where}")


def _compared(images: int, held: int, official: tuple[int, int] | None) -> str:
    if official is None:
        return ""
    return f"; official: {official[0]:,} in {official[1]:,}" + ("" if (images, held) == official else " - DIFFERS")


def _verify(flags: argparse.Namespace, data_dir: pathlib.Path) -> int:
    from imagenet_jax.data.preparing import prepare, verify

    name = flags.dataset.split("/")[0].split(":")[0]
    for flag, path, of in (("--manual_dir", flags.manual_dir, "imagenet2012"), ("--source", flags.source, "imagenet21k")):
        if path and name != of:
            raise UserError(f"{flag} is of {of}, and {flags.dataset} is none. Compare with a data set: --against=NAME.")
    archives = None
    if flags.manual_dir:
        listings = prepare.imagenet2012_listings(flags.manual_dir)
        archives = {split: listing.entries for split, listing in listings.items()}
    elif flags.source:
        archives = prepare.imagenet21k_splits(flags.source)[0]
    verified = verify.verify(data_dir, flags.dataset, against=flags.against, archives=archives, jobs=flags.jobs)
    _show_verified(verified, flags.against or flags.manual_dir or flags.source)
    return cli.FAILED if verified.faults else cli.FINISHED


def _show_verified(verified: Verified, other: object) -> None:
    for split, images in verified.images.items():
        changed = verified.other_bytes.get(split)
        compared = "decoded" if changed is None else f"compared with {other}; {changed:,} hold the same pixels in other bytes"
        print(f"  {split:<11}{images:>10,} images {compared}")
    _show_rows("faults", "not as it should be", verified.faults, "")
    verdict = "is whole" if other is None else f"has exactly the pixels of {other}"
    print(f"{verified.name} {'DIFFERS' if other and verified.faults else 'is DAMAGED' if verified.faults else verdict}")


if __name__ == "__main__":
    cli.run(main)
