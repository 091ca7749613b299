"""`python -m imagenet_jax.bench input|feed|step|train|search`: how fast input, the training step and search are."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

from imagenet_jax import cli
from imagenet_jax.errors import UserError, unknown

DESCRIPTION = """Measure the input pipeline, the training step, and search.

  input   images/s of the training view for each engine and number of cores, where the time goes, pixel quality;
          --peers: interleaved with tf.data, Pillow processes, DALI, grain, OpenCV and others (pip install 'imagenet_jax[peers]')
  feed    a consumer that takes --rate images/s from the loader: how long it waits, and what memory does
  step    the training step of --config on synthetic images: images/s, memory, what limits it, where the time goes;
          --peer=torch: interleaved with the same model in PyTorch
  train   training of --config from files, interleaved with the same step on synthetic images: which side waits
  search  exact and approximate neighbours among --rows synthetic vectors: seconds, memory, recall (extra [search])"""


def main(argv: list[str]) -> int:
    """Parse and run one of the five. Returns the exit code: 3 where a row of `input` broke down."""
    parser = _parser()
    flags, overrides = parser.parse_known_args(argv)
    if strange := [word for word in overrides if "config" not in flags or not word.startswith("--config.")]:
        parser.error(f"unknown arguments: {' '.join(strange)}")
    if flags.what in ("step", "train"):
        return _steps(flags, overrides)
    return {"input": _input, "feed": _feed, "search": _search}[flags.what](flags)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("bench", DESCRIPTION)
    commands = parser.add_subparsers(dest="what", required=True, metavar="input|feed|step|train|search")

    def command(name: str, description: str, batch_size: int) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, description=description, allow_abbrev=False)
        sub.add_argument("--data_dir", help="where data sets lie; else $TFDS_DATA_DIR, else ~/tensorflow_datasets")
        sub.add_argument("--dataset", default="imagenet2012", help="a prepared data set, NAME[/CONFIG][:VERSION]")
        sub.add_argument("--split", default="train")
        sub.add_argument("--size", type=_positive(int), default=224, help="pixels, side of the square")
        sub.add_argument("--batch_size", type=_positive(int), default=batch_size)
        return sub

    measured = command("input", "Images/s, time split and quality of the training view.", 64)
    measured.add_argument("--marked", help="the same images with restart markers: another prepared data set")
    measured.add_argument("--small", help="the same images re-encoded smaller, with restart markers: another prepared data set")
    measured.add_argument("--peers", action="store_true", help="others too, as far as they are installed")
    measured.add_argument("--engines", type=_names, help="of ours, comma-separated; default: all")
    measured.add_argument("--cores", type=_counts, help="comma-separated; default: 1, 2, 4, ... and all")
    measured.add_argument("--rounds", type=_positive(int), default=7)
    measured.add_argument("--seconds", type=_positive(float), default=3.0, help="that each row is timed for in each round")
    measured.add_argument("--images", type=_positive(int), default=1000, help="at most, of the split; they are held in memory")
    measured.add_argument("--crops", type=_positive(int), default=200, help="over which the quality of a row is measured")
    measured.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/bench"), help="for input.json, .png and .log")
    fed = command("feed", "A consumer of --rate images/s.", 256)
    fed.add_argument("--rate", type=_positive(float), required=True, help="images/s")
    fed.add_argument("--seconds", type=_positive(float), default=30.0)
    fed.add_argument("--threads", type=_positive(int), default=0, help="that decode; default: one a core")
    fed.add_argument("--processes", type=_positive(int), default=0, help="workers, --threads in each; default: only threads")
    fed.add_argument("--engine", help="default: the config's")
    for name, description in (("step", "The training step on synthetic images."), ("train", "Training from files.")):
        sub = commands.add_parser(name, description=description, allow_abbrev=False)
        sub.add_argument(
            "--config", required=True, metavar="FILE", help="a config file, or the name of one in configs/; --config.KEY=VALUE"
        )
        sub.add_argument("--rounds", type=_positive(int), default=5)
        sub.add_argument("--steps", type=_positive(int), default=20, help="that each round times")
        sub.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/bench"), help=f"for {name}.json")
        if name == "step":
            sub.add_argument("--num_classes", type=_positive(int), default=1000)
            sub.add_argument("--peer", choices=["torch"], help="pip install 'imagenet_jax[reference]', and torch for your device")
        else:
            sub.add_argument("--data_dir", help="where data sets lie; else $TFDS_DATA_DIR, else ~/tensorflow_datasets")
    searched = commands.add_parser("search", description="Neighbours among synthetic vectors.", allow_abbrev=False)
    searched.add_argument("--rows", type=_positive(int), default=1_000_000)
    searched.add_argument("--dimension", type=_positive(int), default=512)
    searched.add_argument("--queries", type=_positive(int), default=64, help="at a time")
    searched.add_argument("-k", type=_positive(int), default=20)
    searched.add_argument("--rounds", type=_positive(int), default=5)
    searched.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/bench"), help="for search.json, and vectors meanwhile"
    )
    return parser


def _input(flags: argparse.Namespace) -> int:
    import json

    from imagenet_jax import config
    from imagenet_jax.bench import chart, compare, table
    from imagenet_jax.bench import input as bench
    from imagenet_jax.bench.contestants import visible_cores
    from imagenet_jax.data.pixels import decode
    from imagenet_jax.data.reading.sources import open_source
    from imagenet_jax.data.storage import locate

    engines, same = flags.engines or list(decode.ENGINES), config.default().data.decoder
    for name in engines:
        if name not in decode.ENGINES:
            raise unknown("decoder", name, decode.ENGINES)
    visible = len(visible_cores())
    cores = flags.cores or sorted({visible, *(2**i for i in range(visible.bit_length()) if 2**i <= visible)})
    if max(cores) > visible:
        raise UserError(f"--cores={max(cores)}, but this process may use {visible}.")
    data_dir, data = locate.data_dir(flags.data_dir), {}
    for kind, name in ((bench.ORIGINAL, flags.dataset), (bench.MARKED, flags.marked), (bench.SMALL, flags.small)):
        if name:
            data[kind] = bench.load(open_source(data_dir, name, flags.split), flags.images)
    bench.check_same(data)
    settings = bench.Settings(flags.size, flags.batch_size, flags.rounds, flags.seconds, flags.crops)
    rows = bench.plan(list(data), engines, cores, list(bench.PEERS) if flags.peers else [], same)
    flags.out.mkdir(parents=True, exist_ok=True)
    log = flags.out / "input.log"
    log.write_bytes(b"")
    report = bench.about(data, settings, engines)
    report["split"] = bench.split(data[bench.ORIGINAL], engines, settings, log)
    report["rows"] = bench.measure(data, rows, settings, log)
    report["comparisons"] = compare.compare(report["rows"], same)
    (flags.out / "input.json").write_text(json.dumps(report, indent=1) + "\n")
    chart.save(report, flags.out / "input.png")
    print(table.text(report))
    print(f"\nAll numbers: {flags.out / 'input.json'}; picture: {flags.out / 'input.png'}; what the rows printed: {log}")
    return cli.PARTLY if any(row["status"].startswith("failed") for row in report["rows"]) else cli.FINISHED


def _feed(flags: argparse.Namespace) -> int:
    from imagenet_jax import config
    from imagenet_jax.bench.feed import Fed, feed
    from imagenet_jax.data.batches import loader
    from imagenet_jax.data.pixels import decode
    from imagenet_jax.data.reading.sources import open_source
    from imagenet_jax.data.storage import locate

    default = config.resolve(config.default())
    engine = decode.engine(flags.engine or default.data.decoder)
    source = open_source(locate.data_dir(flags.data_dir), flags.dataset, flags.split)
    how = f"threads: {flags.threads or 'one a core'}, processes: {flags.processes or 'none of their own'}"
    print(
        f"{flags.rate:,.0f} images/s wanted in batches of {flags.batch_size}, {flags.size} px, from {source.dataset} "
        f"({len(source):,} images), {how}, {engine.name} {engine.version}, antialiased"
    )
    print("      seconds  images/s   waited  resident memory")

    def show(last: Fed, now: Fed) -> None:
        seconds = now.seconds - last.seconds
        print(
            f"{last.seconds:6,.0f}-{now.seconds:6,.0f}{(now.images - last.images) / seconds:10,.0f}"
            f"{100 * (now.waited - last.waited) / seconds:7.1f} %{now.resident / 2**20:13,.0f} MiB",
            flush=True,
        )

    fed = feed(
        source, loader.Pixels(engine, flags.size, default.crop_ratio, default.antialias),
        rate=flags.rate, seconds=flags.seconds, batch_size=flags.batch_size, threads=flags.threads,
        processes=flags.processes, show=show,
    )  # fmt: skip
    first, last = fed[0], fed[-1]
    print(
        f"all: {last.images / last.seconds:,.0f} images/s, waited {100 * last.waited / last.seconds:.1f} % of the time, "
        f"resident memory {first.resident / 2**20:,.0f} MiB at the start, {last.resident / 2**20:,.0f} MiB at the end"
    )
    return cli.FINISHED


def _steps(flags: argparse.Namespace, overrides: list[str]) -> int:
    from imagenet_jax import config
    from imagenet_jax.bench import training
    from imagenet_jax.data.storage import locate

    chosen, shared = config.load(flags.config, overrides), {"rounds": flags.rounds, "steps": flags.steps, "out": flags.out}
    if flags.what == "step":
        training.bench_step(chosen, num_classes=flags.num_classes, peer=flags.peer is not None, **shared)
    else:
        training.bench_train(chosen, data_dir=locate.data_dir(flags.data_dir), **shared)
    return cli.FINISHED


def _search(flags: argparse.Namespace) -> int:
    import json
    import tempfile

    from imagenet_jax import runtime
    from imagenet_jax.bench import search

    flags.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=flags.out) as folder:
        queries = search.make(pathlib.Path(folder), flags.rows, flags.dimension, flags.queries)
        result = search.measure(pathlib.Path(folder), queries, flags.k, flags.rounds)
    result |= {"versions": runtime.versions(), "devices": runtime.devices()}
    (flags.out / "search.json").write_text(json.dumps(result, indent=1) + "\n")
    print(search.text(result))
    return cli.FINISHED


def _positive(kind: type) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    number.__name__ = kind.__name__  # for argparse's message
    return number


def _names(text: str) -> list[str]:
    return text.split(",")


def _counts(text: str) -> list[int]:
    return sorted({_positive(int)(word) for word in text.split(",")})


if __name__ == "__main__":
    cli.run(main)
