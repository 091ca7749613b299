"""Several processes as one run: how they start together, agree on what must be the same, and stop at the same step.

In one process nothing here does anything. What all must do alike follows from what process 0 says, since a shared file system may
show one host an older file than another.
"""

import argparse
import collections
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from imagenet_jax import processes, runtime, sharding
from imagenet_jax.errors import RunError, UserError

HEARTBEAT = 60  # seconds without a sign of life after which a process is dead, and jax ends the others, naming it
SHUTDOWN = 30  # seconds that a process which ends waits for the others
SENT_AHEAD = 3  # a stop takes effect this many calls after it was asked for; one more than the steps that the loop has in flight
VISIBLE = 30  # seconds until all see a new file; NFS may take as long to notice
MESSAGE = 4096  # bytes of an error that is passed on

T = TypeVar("T")


def start(flags: argparse.Namespace) -> None:
    """Join the other processes, where there are any; before anything asks jax for devices. `flags`: see processes.add_flags.

    Raises UserError for flags that do not go together, and RunError, saying how many processes were expected and which were seen,
    when not all of them come within `flags.start_timeout` seconds. Only process 0 prints from here on, but for errors.
    """
    place = processes.given(flags) or processes.launched()
    # A TPU VM's metadata server, and not its environment, knows of others; so it is with several slices. jax asks.
    on_tpu = find_spec("libtpu") and any(os.path.exists(p) for p in ("/dev/accel0", "/dev/vfio/0"))
    if place is None and not on_tpu:
        return
    # Our own handlers save first (runtime.StopSignal); jax's would swallow a SIGTERM that comes before those are in place.
    jax.config.update("jax_enable_preemption_service", False)
    initialize = functools.partial(
        jax.distributed.initialize, initialization_timeout=flags.start_timeout, heartbeat_timeout_seconds=HEARTBEAT,
        shutdown_timeout_seconds=SHUTDOWN,
    )  # fmt: skip
    if place is None:
        with contextlib.suppress(ValueError):  # nothing is known of others: one process
            initialize()
    else:
        processes.roll_call(place, flags.start_timeout)
        initialize(*place)
    if not runtime.is_main_process():
        print(f"Process {jax.process_index()} of {jax.process_count()}: process 0 prints and writes for all.", flush=True)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- for the rest of the process


def check_same(**things: Any) -> None:
    """Raise UserError where a thing (anything JSON can hold) differs between processes, naming it and the processes."""
    if jax.process_count() == 1:
        return
    digests = [hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).digest() for thing in things.values()]
    mine = np.array([list(d) for d in digests], np.uint8)
    everyone = multihost_utils.process_allgather(mine)
    differing = {
        name: np.flatnonzero((everyone[:, i] != everyone[0, i]).any(-1)).tolist() for i, name in enumerate(things)
    }  # fmt: skip
    told = [f"{name} of process {', '.join(map(str, which))}" for name, which in differing.items() if which]
    if told:
        raise UserError(f"The processes do not agree: {'; '.join(told)} differs from that of process 0. Start all of them alike.")


def check_shared(workdir: pathlib.Path) -> None:
    """Raise UserError, naming the processes, where some do not see a file that process 0 makes in `workdir`."""
    if jax.process_count() == 1:
        return
    mark = workdir / f".shared-{from_main(secrets.randbits(31)):08x}"
    main_first(mark.touch)
    end = time.monotonic() + VISIBLE
    while not mark.exists() and time.monotonic() < end:
        time.sleep(0.1)
    seen = multihost_utils.process_allgather(np.int32(mark.exists()))
    main_first(lambda: mark.unlink(missing_ok=True))
    if blind := np.flatnonzero(seen == 0).tolist():
        raise UserError(
            f"Process {', '.join(map(str, blind))} does not see what process 0 writes to --workdir={workdir}. Name a directory "
            "on a file system that all hosts share."
        )


def main_first(action: Callable[[], Any]) -> None:
    """Process 0 acts, the others go on afterwards. A UserError or RunError that it meets is raised in all of them."""
    together(action if runtime.is_main_process() else lambda: None)


def together(action: Callable[[], T]) -> T:
    """All act, each by itself, and wait for each other; returns what `action` returned here.

    A UserError or RunError that one of them meets is raised in all; of several, the one of the lowest process.
    """
    if jax.process_count() == 1:
        return action()
    result, said = None, np.zeros(MESSAGE, np.uint8)
    try:
        result = action()
    except (UserError, RunError) as error:
        text = f"{type(error).__name__}:{error}".encode()[:MESSAGE]
        said[: len(text)] = list(text)
    for process, each in enumerate(multihost_utils.process_allgather(said)):
        kind, _, message = bytes(each).rstrip(b"\0").decode(errors="replace").partition(":")
        if kind:
            whose = f"Process {process}: " if process else ""
            raise {"UserError": UserError, "RunError": RunError}[kind](whose + message)
    return cast(T, result)


def from_main(value: int) -> int:
    """Process 0's value, in all of them."""
    return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def of_all(value: float) -> list[float]:
    """The values of all processes, in their order."""
    return [value] if jax.process_count() == 1 else multihost_utils.process_allgather(np.float32(value)).tolist()


class Stop:
    """Whether a signal to any process asks the run to stop: the n-th call answers the same in all of them.

    No call waits for a device: each sends what this process knows and reads what all knew `SENT_AHEAD` calls before.
    """

    def __init__(self, signals: runtime.StopSignal, mesh: Mesh):
        self._signals, self._agreed = signals, 0
        if jax.process_count() == 1:
            return
        local = len(mesh.local_devices)
        # On the devices once, not at every call: 0 and, later, the signal's number.
        self._known = functools.cache(lambda n: sharding.put_batch(mesh, {"n": np.full(local, n, np.int32)})["n"])
        self._largest = jax.jit(jnp.max, out_shardings=sharding.replicated(mesh))
        self._sent: collections.deque[jax.Array] = collections.deque()
        # Connect all devices while all processes are here: gloo gives up after 30 s, and one may compile for longer than another.
        jax.block_until_ready(self._largest(self._known(0)))

    def __call__(self) -> bool:
        if jax.process_count() > 1 and not self._agreed:
            self._sent.append(self._largest(self._known(int(self._signals.received or 0))))
            if len(self._sent) > SENT_AHEAD:
                self._agreed = int(self._sent.popleft())
        return self.signal is not None

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that the last call answered to."""
        if jax.process_count() == 1:
            return self._signals.received
        return signal.Signals(self._agreed) if self._agreed else None


@contextlib.contextmanager
def naming_the_lost() -> Iterator[None]:
    """Turn the error of a communication that broke off into a RunError. jax then ends the process, naming the one that is lost."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise
        raise RunError(
            f"Process {jax.process_index()} of {jax.process_count()} lost another, which jax names below within {HEARTBEAT} s "
            f"({str(error).splitlines()[0]}). Start all of them again: the run goes on from its last checkpoint."
        ) from error
