"""Compile a config's training step for TPUs that are not here: python -m imagenet_jax.aot --config=resnet50 --topology=v5e:2x4

Needs libtpu (the extra [aot]), which compiles on any Linux x86 machine, and no TPU. What is printed is the compiler's own account.
"""

import collections
import os
import time
from typing import Any, NamedTuple

from imagenet_jax import cli, config, validate
from imagenet_jax.errors import RunError, UserError, unknown

DESCRIPTION = """Compile a config's training step for a TPU topology, on this machine, without a TPU.

Prints memory, work and communication of one step on one chip, and whether it fits. Takes minutes, and some GB of memory."""

EXAMPLES = 1_281_167  # of the data set: only constants of the schedule depend on it


class Chip(NamedTuple):
    """What one chip has: memory in GB, bfloat16 TFLOP/s, memory and interconnect (sum of both directions) in GB/s."""

    memory: float
    tflops: float
    memory_bandwidth: float
    interconnect: float


# https://docs.cloud.google.com/tpu/docs/v5e and .../v5p-training, read in November 2026.
CHIPS = {"v5e": Chip(16, 197, 819, 400), "v5p": Chip(95, 459, 2765, 1200)}


def main(argv: list[str]) -> int:
    """Parse the flags, compile, print."""
    parser = cli.parser("aot", DESCRIPTION)
    parser.add_argument("--config", required=True, metavar="FILE", help="a config file, or the name of one in configs/")
    parser.add_argument("--topology", required=True, metavar="CHIP:SHAPE", help="such as v5e:2x4, v5e:16x16 or v5p:4x4x4")
    parser.add_argument("--num_classes", type=int, default=1000, help="default: 1000")
    flags, overrides = parser.parse_known_args(argv)
    if strange := [flag for flag in overrides if not flag.startswith("--config.")]:
        parser.error(f"unknown arguments: {' '.join(strange)}")
    chip = flags.topology.partition(":")[0]
    if chip not in CHIPS:
        raise unknown("chip", chip, CHIPS)
    chosen = config.load(flags.config, overrides)
    os.environ["JAX_PLATFORMS"] = "cpu"  # libtpu is here to compile, not to look for chips
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # its lock guards chips, of which there are none
    begin = time.perf_counter()
    compiled, c = compile_step(chosen, flags.topology, flags.num_classes)
    print(f"{c['model']['name']}, batch {c['batch_size']:,}, on {flags.topology}, compiled in {time.perf_counter() - begin:.0f} s")
    print(account(compiled, CHIPS[chip]))
    return cli.FINISHED


def compile_step(chosen: config.Config, topology: str, num_classes: int) -> tuple[Any, dict[str, Any]]:
    """The compiled training step of a config for a topology, and the plain config.

    Raises UserError where libtpu is missing or knows no such topology, and RunError where the step does not fit the chips.
    """
    import jax
    from jax.experimental import topologies

    from imagenet_jax import build, sharding, train
    from imagenet_jax.plan import Plan

    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # of several types, none of them ours or documented
        raise UserError(
            f"libtpu, of pip install 'imagenet_jax[aot]', gives no topology {topology!r}: {str(error).splitlines()[0]}"
        ) from error
    chosen = config.resolve(chosen)
    mesh = sharding.make_mesh(devices, chosen.mesh.fsdp)
    validate.config(chosen, devices=mesh.size)
    c = config.plain(chosen)
    if c["distill"]["weights"]:
        raise UserError("aot compiles no teacher. Set --config.distill.weights='' to compile the student's step.")
    model = build.model(c, num_classes)
    plan = Plan(c, EXAMPLES)
    schedule, _ = build.schedule(c, plan)
    abstract = build.abstract_state(model, c, mesh)
    step = train.jitted_step(c, model, build.optimizer(c), schedule, build.loss(c, ()), plan, abstract, mesh)
    try:
        return step.lower(abstract, sharding.batch_shapes(mesh, c["batch_size"], c["image_size"])).compile(), c
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise RunError(f"Does not fit {topology}: {str(error).splitlines()[0]}") from error


def account(compiled: Any, chip: Chip) -> str:
    """Memory, work and communication of one step on one chip, from XLA's analyses of the compiled program."""
    from imagenet_jax import hlo

    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    lines = [
        f"memory       arguments {_mib(memory.argument_size_in_bytes)}, temporaries {_mib(memory.temp_size_in_bytes)}, "
        f"peak {_mib(peak)}: {'fits' if peak < chip.memory * 1e9 else 'does not fit'} {chip.memory:g} GB",
        f"work         {cost['flops'] / 1e12:.3f} TFLOP, {cost['bytes accessed'] / 1e9:.2f} GB accessed, of HBM "
        f"{hlo.traffic(compiled.as_text()) / 1e9:.2f} GB",
    ]
    kinds: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    for found in hlo.collectives(compiled.as_text()):
        kinds[found.kind].append(found.size)
    lines += [f"{kind:12s} {len(sizes):3d}, {sum(sizes) / 2**20:,.1f} MiB" for kind, sizes in sorted(kinds.items())]
    busy = {
        "computing": cost["flops"] / (chip.tflops * 1e12),
        "memory": cost["bytes accessed"] / (chip.memory_bandwidth * 1e9),
        # A ring sends every byte of an all-reduce twice, of the others once, through half of the links' sum of both directions.
        "communicating": sum((1 + (k == "all-reduce")) * sum(s) for k, s in kinds.items()) / (chip.interconnect / 2 * 1e9),
    }
    lines.append("at peak      " + ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in busy.items()))
    return "\n".join(lines)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


if __name__ == "__main__":
    cli.run(main)
