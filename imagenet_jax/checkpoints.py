"""List a run's checkpoints: python -m imagenet_jax.checkpoints runs/r50 [--verify]"""

import pathlib
import re
from typing import Any

from imagenet_jax import cli, logs
from imagenet_jax.errors import RunError, UserError

DESCRIPTION = """List the checkpoints of a run: step, size, what the evaluation at that step found, and health.

Exit codes: 0 all are sound, 1 one of them is not or there is none, 2 the directory is no run."""


def main(argv: list[str]) -> int:
    """Parse the flags, look at each step, print the table."""
    parser = cli.parser("checkpoints", DESCRIPTION)
    parser.add_argument("workdir", type=cli.path, help="directory of the run")
    parser.add_argument("--verify", action="store_true", help="read each of them whole and hold it against its digests")
    flags = parser.parse_args(argv)
    from imagenet_jax import checkpoint, record, runtime

    run = record.read(flags.workdir)
    directory = flags.workdir / "checkpoints"
    there = sorted(d for d in directory.glob("[0-9]*") if d.is_dir()) if directory.is_dir() else []
    sound = {checkpoint.name(step): "complete" for step in checkpoint.steps(directory)}
    if flags.verify:
        runtime.setup()
        sound = {name: verified(directory, int(name), run) for name in sound}
    tops = evaluated(flags.workdir)
    for folder in there:
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        step = int(re.match(r"\d+", folder.name)[0])  # type: ignore[index] -- as the glob says
        aside = folder.name.partition(".")[2]
        health = sound.get(folder.name) or (f"set aside: {cli.printable(aside)}" if aside else "no readable manifest")
        print(f"step {step:>9,}  {size / 1e6:>9,.1f} MB  {tops.get(step, ''):34s}  {health}")
    best = checkpoint.best_step(flags.workdir, checkpoint.steps(directory))
    print(f"{len(sound)} checkpoints" + (f", the best at step {best:,}" if best is not None else ""))
    bad = [d.name for d in there if "." not in d.name and sound.get(d.name) not in ("complete", "sound")]
    return cli.FAILED if bad or not sound else cli.FINISHED


def verified(directory: pathlib.Path, step: int, run: dict[str, Any]) -> str:
    """What is to be said of a step that was read whole."""
    import jax

    from imagenet_jax import build, checkpoint, sharding

    mesh = sharding.make_mesh(jax.devices()[:1])
    like = build.abstract_state(build.model(run["config"], len(run["dataset"]["classes"])), run["config"], mesh)
    try:
        checkpoint.restore(directory, step, like)
    except (RunError, UserError) as error:
        return str(error)
    return "sound"


def evaluated(workdir: pathlib.Path) -> dict[int, str]:
    """Step -> what its evaluation found, as text."""
    found: dict[int, list[str]] = {}
    for r in logs.read(workdir / "metrics.jsonl"):
        if r["kind"] == "eval":
            found.setdefault(r["step"], []).append(f"{r['weights']} top-1 {r['top1']:.2%}")
    return {step: ", ".join(parts) for step, parts in found.items()}


if __name__ == "__main__":
    cli.run(main)
