"""The training step on images that lie on the device: `bench step`. With batches from the loader instead: `bench train`.

What XLA says of the compiled step (operations, bytes accessed) stands beside what the device was seen to reach in the same call.
"""

import collections
import itertools
import multiprocessing
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from imagenet_jax import build, loop, sharding, train
from imagenet_jax.errors import RunError
from imagenet_jax.plan import Plan

EXAMPLES = 1_281_167  # of the data set: only constants of the schedule depend on it
WARM = 3  # steps before a turn's clock starts
PROFILED = 3  # steps
SIDE, SMALL_SIDE = 8192, 1024  # of the matrices whose product is timed; on a CPU


class Ceilings(NamedTuple):
    """What one device reaches here, a second."""

    flops: float  # of a product of large matrices in the model's dtype
    bytes: float  # read and written, of one large array to another


class Step:
    """The compiled training step of a plain (JSON) config on a mesh, and the state that it goes on from, turn by turn."""

    def __init__(self, c: dict[str, Any], mesh: Mesh, num_classes: int) -> None:
        self.batch_size, self.mesh = c["batch_size"], mesh
        self._size, self._num_classes = c["image_size"], num_classes
        model = build.model(c, num_classes)
        plan = Plan(c, EXAMPLES)
        schedule, _ = build.schedule(c, plan)
        abstract = build.abstract_state(model, c, mesh)
        step = train.jitted_step(c, model, build.optimizer(c), schedule, build.loss(c, ()), plan, abstract, mesh)
        begin = time.perf_counter()
        self._compiled = step.lower(abstract, sharding.batch_shapes(mesh, self.batch_size, self._size)).compile()
        self.compile_seconds = time.perf_counter() - begin
        where = jax.tree.map(lambda x: x.sharding, abstract)
        self._state = jax.jit(build.state_init(model, c), out_shardings=where)(jax.random.key(0))

    def turn(self, batches: Iterator[Any], steps: int, warm: int = WARM) -> tuple[float, float]:
        """Seconds a step over `steps` steps, after `warm` others, and the part of them that went into waiting for a batch."""
        self._take(batches, warm)
        begin = time.perf_counter()
        waited = self._take(batches, steps)
        return (time.perf_counter() - begin) / steps, waited / steps

    def synthetic(self) -> Iterator[Any]:
        """One random batch for ever, on the device."""
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (self.batch_size, self._size, self._size, 3), np.uint8)
        labels = random.integers(0, self._num_classes, self.batch_size, np.int32)
        return itertools.repeat(sharding.put_batch(self.mesh, {"image": images, "label": labels}))

    def account(self) -> dict[str, float]:
        """Of one step on one device: images, flops, bytes accessed (the compiler's figures), and peak_memory in bytes.

        That is the device's own count where it keeps one, else what the compiler planned.
        """
        cost, memory = self._compiled.cost_analysis() or {}, cast(Any, self._compiled.memory_analysis())
        planned = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        seen = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        return {
            "images": self.batch_size / self.mesh.size,
            "flops": cost.get("flops", 0.0),
            "bytes": cost.get("bytes accessed", 0.0),
            "peak_memory": float(seen or planned + memory.temp_size_in_bytes),
        }

    def operations(self) -> list[tuple[str, float]]:
        """(name, seconds a step on one device) of what the profiler saw, the longest first. Parallel ones each count in full."""
        batches = self.synthetic()
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                self._take(batches, PROFILED)
            [file] = pathlib.Path(folder).rglob("*.xplane.pb")
            found = profiled(jax.profiler.ProfileData.from_file(str(file)))
        return [(name, seconds / PROFILED / self.mesh.size) for name, seconds in found.most_common()]

    def _take(self, batches: Iterator[Any], steps: int) -> float:
        """That many steps, as loop.fit takes them: at most loop.IN_FLIGHT under way. Returns the seconds of waiting for batches."""
        waited, under_way = 0.0, collections.deque()
        for _ in range(steps):
            begin = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - begin
            self._state, sums = self._compiled(self._state, batch)
            under_way.append(sums)
            if len(under_way) > loop.IN_FLIGHT:
                jax.block_until_ready(under_way.popleft())
        jax.block_until_ready(self._state)
        return waited


class Torch:
    """PyTorch's step of the same model (peers/torch_step.py), in a process of its own. Raises RunError where it breaks down."""

    def __init__(self, c: dict[str, Any], num_classes: int) -> None:
        from imagenet_jax.bench.peers import torch_step

        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        settings = (c["model"]["name"], c["model"]["dtype"], c["batch_size"], c["image_size"], num_classes)
        self._process = context.Process(target=torch_step.serve, args=(theirs, *settings), daemon=True)
        self._process.start()
        theirs.close()
        self.about: str = self._answer()

    def turn(self, steps: int) -> float:
        """Seconds a step over `steps` steps."""
        self._pipe.send(steps)
        return self._answer()

    def close(self) -> None:
        """End its process."""
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        try:
            failed, answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            failed, answer = f"its process ended with code {self._process.exitcode}", None
        if failed:
            self.close()
            raise RunError(f"--peer=torch: {failed}")
        return answer


def profiled(data: Any) -> collections.Counter[str]:
    """Seconds by name of all operations of XLA in a profile, which are the events that have the statistic "hlo_op"."""
    seconds: collections.Counter[str] = collections.Counter()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                if name := dict(event.stats).get("hlo_op"):
                    seconds[str(name)] += event.duration_ns / 1e9
    return seconds


def ceilings(dtype: str, repeats: int = 5) -> Ceilings:
    """Of the first device: the best of `repeats`."""
    side = SMALL_SIDE if jax.default_backend() == "cpu" else SIDE
    a = jnp.ones((side, side), dtype)
    x = jnp.ones(side * side * 8, jnp.float32)  # 2 GiB; 32 MiB on a CPU
    product = _best(jax.jit(lambda a: a @ a), a, repeats)
    copy = _best(jax.jit(lambda x: x + 1), x, repeats)
    return Ceilings(2 * side**3 / product, 2 * x.nbytes / copy)


def _best(function: Callable[[jax.Array], jax.Array], argument: jax.Array, repeats: int) -> float:
    """Seconds of the fastest of `repeats` runs of 3 calls, for one call."""
    jax.block_until_ready(function(argument))

    def once() -> float:
        begin = time.perf_counter()
        jax.block_until_ready([function(argument) for _ in range(3)])
        return (time.perf_counter() - begin) / 3

    return min(once() for _ in range(repeats))


def interleaved(turns: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each of the turns returns in each of `rounds` rounds; another one begins each round."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for i in range(rounds):
        names = list(turns)
        for name in (*names[i % len(names) :], *names[: i % len(names)]):
            found[name].append(turns[name]())
    return found
