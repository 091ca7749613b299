"""Compile a training step for TPUs or GPUs that are not here: python -m imagenet_jax.aot --config=resnet50 --topology=v5e:2x4

Needs the compilers of the extra [aot], libtpu and jax's CUDA plugin, which run on any Linux x86 machine. What is printed is the
compiler's own account.
"""

import collections
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from imagenet_jax import cli, config, validate
from imagenet_jax.errors import RunError, UserError, unknown

DESCRIPTION = """Compile a config's training step for a topology of TPUs or GPUs, on this machine, without one.

Prints memory, work and communication of one step on one chip, and whether it fits. Takes minutes, and some GB of memory."""

EXAMPLES = 1_281_167  # of the data set: only constants of the schedule depend on it


class Chip(NamedTuple):
    """What one chip has: memory in GB, bfloat16 TFLOP/s, memory and interconnect (sum of both directions) in GB/s."""

    memory: float
    tflops: float
    memory_bandwidth: float
    interconnect: float


# https://docs.cloud.google.com/tpu/docs/v5e and .../v5p-training; NVIDIA's data sheets of the H100 SXM and the H200 SXM. Read in
# November 2026.
CHIPS = {
    "v5e": Chip(16, 197, 819, 400),
    "v5p": Chip(95, 459, 2765, 1200),
    "h100": Chip(80, 989, 3350, 900),
    "h200": Chip(141, 989, 4800, 900),
}
# What XLA asks a GPU before it compiles, in the words of its GpuTargetConfigProto: those of the Hopper generation.
HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  l2_cache_size: 52428800 memory_bandwidth: {bandwidth} device_memory_size: {memory}
}}
platform_name: "CUDA" device_description_str: "{name}"
dnn_version_info {{ major: 9 minor: 8 }} runtime_version {{ major: 12 minor: 9 }}
"""
GPUS = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200"}
# Without a GPU nothing can be timed: cuBLAS takes all matrix products, and cuDNN's algorithms are XLA's first choice.
GPU_OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}


def main(argv: list[str]) -> int:
    """Parse the flags, compile, print."""
    parser = cli.parser("aot", DESCRIPTION)
    parser.add_argument("--config", required=True, metavar="FILE", help="a config file, or the name of one in configs/")
    parser.add_argument("--topology", required=True, metavar="CHIP:SHAPE", help="such as v5e:2x4, v5p:4x4x4, h100:8 or h200:2x8")
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
    program, c = compile_step(chosen, flags.topology, flags.num_classes)
    print(f"{c['model']['name']}, batch {c['batch_size']:,}, on {flags.topology}, compiled in {time.perf_counter() - begin:.0f} s")
    print(account(program, CHIPS[chip]))
    return cli.FINISHED


class Program(NamedTuple):
    """A compiled step, from `jax.stages`, the operations of one device and the bytes that they access."""

    compiled: Any
    flops: float
    accessed: float


def compile_step(chosen: config.Config, topology: str, num_classes: int) -> tuple[Program, dict[str, Any]]:
    """The training step of a config compiled for a topology, and the plain config.

    Raises UserError where the compiler is missing or knows no such topology, and RunError where the step does not fit the chips.
    """
    import jax

    from imagenet_jax import hlo

    devices = devices_of(topology)
    chosen = config.resolve(chosen)
    validate.config(chosen, devices=len(devices))
    c = config.plain(chosen)
    if c["distill"]["weights"]:
        raise UserError("aot compiles no teacher. Set --config.distill.weights='' to compile the student's step.")
    try:
        compiled = lowered(c, num_classes, devices, c["mesh"]["fsdp"]).compile(GPU_OPTIONS if is_gpu(topology) else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise RunError(f"Does not fit {topology}: {str(error).splitlines()[0]}") from error
    if is_gpu(topology):  # whose compiler counts nothing before it has a GPU
        whole = lowered(c, num_classes, jax.devices("cpu")[:1], fsdp=1).cost_analysis()
        return Program(compiled, whole["flops"] / len(devices), hlo.traffic(compiled.as_text())), c
    cost = compiled.cost_analysis()
    return Program(compiled, cost["flops"], cost["bytes accessed"]), c


def lowered(c: dict[str, Any], num_classes: int, devices: Sequence[Any], fsdp: int) -> Any:
    """The training step of a plain config for devices, not yet compiled."""
    from imagenet_jax import build, sharding, train
    from imagenet_jax.plan import Plan

    mesh = sharding.make_mesh(devices, fsdp)
    model = build.model(c, num_classes)
    plan = Plan(c, EXAMPLES)
    schedule, _ = build.schedule(c, plan)
    abstract = build.abstract_state(model, c, mesh)
    step = train.jitted_step(c, model, build.optimizer(c), schedule, build.loss(c, ()), plan, abstract, mesh)
    return step.lower(abstract, sharding.batch_shapes(mesh, c["batch_size"], c["image_size"]))


def is_gpu(topology: str) -> bool:
    """Whether a topology's chips are GPUs."""
    return topology.partition(":")[0] in GPUS


def devices_of(topology: str) -> Sequence[Any]:
    """The devices of a topology, for the compiler. Raises UserError where the compiler is missing or knows no such topology."""
    from jax.experimental import topologies

    chip, _, shape = topology.partition(":")
    try:
        if not is_gpu(topology):
            return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
        memory, _, bandwidth, _ = CHIPS[chip]
        target = HOPPER.format(name=GPUS[chip], memory=int(memory * 1e9), bandwidth=int(bandwidth * 1e9))
        hosts = "1x" if "x" in shape else "1x1x"
        return topologies.get_topology_desc(
            platform="cuda", topology_name=topology, topology=hosts + shape, target_config=target
        ).devices
    except Exception as error:  # of several types, none of them ours or documented
        raise UserError(
            f"The compilers of pip install 'imagenet_jax[aot]' give no topology {topology!r}: {str(error).splitlines()[0]}"
        ) from error


def account(program: Program, chip: Chip) -> str:
    """Memory, work and communication of one step on one chip, from XLA's analyses of the compiled program."""
    from imagenet_jax import hlo

    compiled, flops, accessed = program
    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    lines = [
        f"memory       arguments {_mib(memory.argument_size_in_bytes)}, temporaries {_mib(memory.temp_size_in_bytes)}, "
        f"peak {_mib(peak)}: {'fits' if peak < chip.memory * 1e9 else 'does not fit'} {chip.memory:g} GB",
        f"work         {flops / 1e12:.3f} TFLOP, {accessed / 1e9:.2f} GB accessed, of HBM "
        f"{hlo.traffic(compiled.as_text()) / 1e9:.2f} GB",
    ]
    kinds: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    for found in hlo.collectives(compiled.as_text()):
        kinds[found.kind].append(found.size)
    lines += [f"{kind:12s} {len(sizes):3d}, {sum(sizes) / 2**20:,.1f} MiB" for kind, sizes in sorted(kinds.items())]
    busy = {
        "computing": flops / (chip.tflops * 1e12),
        "memory": accessed / (chip.memory_bandwidth * 1e9),
        # A ring sends every byte of an all-reduce twice, of the others once, through half of the links' sum of both directions.
        "communicating": sum((1 + (k == "all-reduce")) * sum(s) for k, s in kinds.items()) / (chip.interconnect / 2 * 1e9),
    }
    lines.append("at peak      " + ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in busy.items()))
    return "\n".join(lines)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


if __name__ == "__main__":
    cli.run(main)
