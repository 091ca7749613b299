"""What `bench step` and `bench train` do: measure in interleaved rounds, write JSON, and print what a person wants to know."""

import contextlib
import json
import os
import pathlib
import time
from typing import Any

import jax

from imagenet_jax import config, loop, runtime, sharding, train, validate
from imagenet_jax.bench import stats
from imagenet_jax.bench.step import Ceilings, Step, Torch, ceilings, interleaved
from imagenet_jax.bench.table import columns
from imagenet_jax.data.augmentation import augment
from imagenet_jax.data.batches import loader
from imagenet_jax.data.batches.threads import visible_cores
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.storage import locate

SHOWN = 10  # operations
PREFETCHED = 8  # batches beyond data.prefetch that may be ready before a turn begins: on the device, and under way


def bench_step(chosen: config.Config, *, num_classes: int, rounds: int, steps: int, peer: bool, out: pathlib.Path) -> None:
    """The step alone, with `peer` beside PyTorch's. Writes `out`/step.json. Raises RunError where the peer breaks down."""
    if peer:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # it needs memory of the same device
    c, step = _compiled(chosen, num_classes)
    found = _about(c, step)
    batches = step.synthetic()
    with contextlib.ExitStack() as stack:
        turns = {"ours": lambda: step.turn(batches, steps)[0]}
        if peer:
            torch = Torch(c, num_classes)
            stack.callback(torch.close)
            found["torch"] = torch.about
            turns["torch"] = lambda: torch.turn(steps)
        seconds = interleaved(turns, rounds)
    found |= {"ceilings": ceilings(c["model"]["dtype"])._asdict(), "account": step.account(), "operations": step.operations()}
    found |= {"steps": steps, "rounds": {name: [step.batch_size / s for s in taken] for name, taken in seconds.items()}}
    print("\n".join([_head(found), *_rates(found["rounds"]), *_limits(found), "", _operations(found["operations"])]))
    _write(out / "step.json", found)


def bench_train(chosen: config.Config, *, data_dir: locate.Place, rounds: int, steps: int, out: pathlib.Path) -> None:
    """Training from encoded images, beside the same step on synthetic ones and the loader alone. Writes `out`/train.json."""
    chosen = config.resolve(chosen)
    plain = config.plain(chosen)
    source, _ = train.open_data(plain, data_dir)
    c, step = _compiled(chosen, len(source.classes))
    engine = decode.engine(c["data"]["decoder"], c["interpolation"])
    pixels = loader.Pixels(engine, c["image_size"], c["crop_ratio"], c["antialias"], c["data"]["max_pixels"])
    hosting = {key: c["data"][key] for key in ("threads", "processes", "prefetch")}
    batch_size, warm = c["batch_size"], c["data"]["prefetch"] + PREFETCHED
    host = loader.train_batches(
        source, pixels, augment.chain(c["augment"]), seed=c["seed"], batch_size=batch_size, rows=loader.Rows(0, batch_size),
        start=0, stop=2**40, repeats=c["repeats"], **hosting,
    )  # fmt: skip
    batches = loop.ahead(host, lambda b: sharding.put_batch(step.mesh, {k: b[k] for k in ("image", "label")}))
    synthetic, waits = step.synthetic(), []

    def fed() -> float:
        seconds, waited = step.turn(batches, steps, warm)
        waits.append(waited / seconds)
        return seconds

    with contextlib.closing(host):
        turns = {"synthetic": lambda: step.turn(synthetic, steps)[0], "from files": fed}
        seconds = interleaved(turns, rounds)
        alone = [_loader_alone(host, steps, warm) for _ in range(rounds)]
    found = _about(c, step) | {
        "steps": steps,
        "data": f"{source.dataset} {source.split}, {len(source):,} images",
        "decoder": f"{engine.name} {engine.version}",
        "cores": visible_cores(),
        "waits": waits,
        "rounds": {name: [batch_size / s for s in taken] for name, taken in (seconds | {"loader alone": alone}).items()},
    }
    print("\n".join([_head(found), f"{found['data']}, decoded by {found['decoder']} on {found['cores']} cores"]))
    print("\n".join([*_rates(found["rounds"]), f"the device waits for images {stats.summary(waits)['median']:.1%} of the time"]))
    _write(out / "train.json", found)


def _compiled(chosen: config.Config, num_classes: int) -> tuple[dict[str, Any], Step]:
    """The plain config, and its step compiled on all devices."""
    chosen = config.resolve(chosen)
    runtime.setup()
    mesh = sharding.make_mesh(None, chosen.mesh.fsdp)
    validate.config(chosen, devices=mesh.size)
    c = config.plain(chosen)
    with loop.out_of_memory_hint(c["batch_size"], mesh.size):
        return c, Step(c, mesh, num_classes)


def _loader_alone(host: Any, steps: int, warm: int) -> float:
    """Seconds a batch."""
    for _ in range(warm):
        next(host)
    begin = time.perf_counter()
    for _ in range(steps):
        next(host)
    return (time.perf_counter() - begin) / steps


def _about(c: dict[str, Any], step: Step) -> dict[str, Any]:
    return {
        "model": c["model"],
        "image_size": c["image_size"],
        "batch_size": c["batch_size"],
        "compile_seconds": step.compile_seconds,
        "devices": runtime.devices(),
        "versions": runtime.versions(),
        "git_commit": runtime.git_commit(),
    }


def _head(found: dict[str, Any]) -> str:
    model, devices = found["model"], f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return (
        f"{model['name']}, {found['image_size']} px, {model['dtype']}, batch {found['batch_size']:,} on {devices}, compiled in "
        f"{found['compile_seconds']:.0f} s; rounds of {found['steps']} steps, interleaved"
    )


def _rates(rounds: dict[str, list[float]]) -> list[str]:
    """Images/s of all, and the ratio of each pair with the first."""
    (first, reference), *others = rounds.items()
    lines = []
    for name, rates in rounds.items():
        s = stats.summary(rates)
        lines.append(f"{name:12s} {s['median']:,.1f} img/s [{s['min']:,.1f}-{s['max']:,.1f}], n = {s['n']}")
    for name, rates in others:
        a, b, title = (reference, rates, f"{first} / {name}") if name == "torch" else (rates, reference, f"{name} / {first}")
        ratio, low, high = stats.ratio(a, b)
        lines.append(f"{title}: {ratio:.2f} [{low:.2f}-{high:.2f}]")
    return lines


def _limits(found: dict[str, Any]) -> list[str]:
    account, reached = found["account"], Ceilings(**found["ceilings"])
    seconds = found["batch_size"] / stats.summary(found["rounds"]["ours"])["median"]
    flops, moved = account["flops"] / seconds, account["bytes"] / seconds
    an_image = account["images"]
    return [
        f"operations   {account['flops'] / an_image / 1e9:.2f} GFLOP an image, {flops / 1e12:.2f} TFLOP/s a device: "
        f"{flops / reached.flops:.0%} of a large product's {reached.flops / 1e12:.2f}",
        f"memory       {account['bytes'] / an_image / 1e6:.1f} MB accessed an image (XLA's count), {moved / 1e9:.1f} GB/s a "
        f"device: {moved / reached.bytes:.0%} of a copy's {reached.bytes / 1e9:.1f}",
        f"peak memory  {account['peak_memory'] / 2**20:,.0f} MiB a device",
    ]


def _operations(found: list[tuple[str, float]]) -> str:
    everything = sum(seconds for _, seconds in found)
    lines = [("operation of XLA", "ms a step", "share")]
    lines += [(name, f"{1e3 * seconds:.2f}", f"{seconds / everything:.1%}") for name, seconds in found[:SHOWN]]
    return columns(lines)


def _write(path: pathlib.Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"All numbers: {path}")
