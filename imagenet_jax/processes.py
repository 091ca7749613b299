"""Which processes make up a run, from flags or from what launched them; and a roll call before jax waits for them.

jax's own time-out ends the process without saying who is missing. Nothing here imports jax.
"""

import argparse
import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

from imagenet_jax.errors import RunError, UserError

PORT = 8482  # of process 0 where the launcher names none; the one that jax uses on TPUs
LINE = 32  # bytes that a process says at most in the roll call: "process_id num_processes"
HEARD = b"ok"
RETRY = 0.2  # seconds between tries to reach process 0


class Place(NamedTuple):
    """Where a process stands among all: the coordinator's host:port, how many there are, and which this is."""

    coordinator: str
    processes: int
    process: int


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `given` reads, and --start_timeout."""
    group = parser.add_argument_group("several processes", "found out under SLURM, Open MPI and on TPUs; else give all three")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0; default: JAX_COORDINATOR_ADDRESS")
    group.add_argument("--num_processes", type=int, metavar="N")
    group.add_argument("--process_id", type=int, metavar="I", help="0 .. N - 1")
    group.add_argument("--start_timeout", type=int, default=300, metavar="SECONDS", help="to wait for all of them; default: 300")


def given(flags: argparse.Namespace, env: Mapping[str, str] = os.environ) -> Place | None:
    """What the flags say, or None where they say nothing. Raises UserError where they do not go together."""
    count, index = flags.num_processes, flags.process_id
    if count is None and index is None and flags.coordinator is None:
        return None
    coordinator = flags.coordinator or env.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None or count is None or index is None:
        raise UserError("--coordinator, --num_processes and --process_id go together: give all three to every process.")
    if not 0 <= index < count:
        raise UserError(f"--process_id={index} of --num_processes={count}: processes are numbered 0 .. {count - 1}.")
    if not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"--coordinator={coordinator} must be HOST:PORT, of process 0.")
    return Place(coordinator, count, index) if count > 1 else None


def launched(env: Mapping[str, str] = os.environ) -> Place | None:
    """What SLURM's srun, Open MPI's mpirun or GKE's TPU variables say; None where they tell of one process or none."""
    coordinator = env.get("JAX_COORDINATOR_ADDRESS")
    if "SLURM_STEP_NODELIST" in env and int(env.get("SLURM_NTASKS", 1)) > 1:
        # "node[003-007,9],other" begins with node003. A port of the job's own, so that two jobs share a node.
        prefix, first = re.match(r"([^,\[]+)(?:\[(\w+))?", env["SLURM_STEP_NODELIST"]).groups("")  # type: ignore[union-attr]
        port = 61440 + int(env["SLURM_JOB_ID"]) % 4096
        return Place(coordinator or f"{prefix}{first}:{port}", int(env["SLURM_NTASKS"]), int(env["SLURM_PROCID"]))
    if int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        uri = re.search(r"tcp://([\d.]+)", env.get("OMPI_MCA_orte_hnp_uri", ""))  # of mpirun; Open MPI 5 has none
        if not coordinator and not uri:
            raise UserError("Open MPI names no address of rank 0 here. Set one: mpirun -x JAX_COORDINATOR_ADDRESS=HOST:PORT ...")
        address = coordinator or f"{uri[1]}:{PORT}"  # type: ignore[index]
        return Place(address, int(env["OMPI_COMM_WORLD_SIZE"]), int(env["OMPI_COMM_WORLD_RANK"]))
    hosts = env.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(hosts) > 1 and "MEGASCALE_NUM_SLICES" not in env:  # of several slices, these are but one's
        return Place(coordinator or f"{hosts[0]}:{PORT}", len(hosts), int(env["TPU_WORKER_ID"]))
    return None


def roll_call(place: Place, timeout: float) -> None:
    """Return when all processes of the run have reached process 0 at its coordinator's address; the port is then free again.

    Raises RunError after `timeout` seconds, saying how many were expected and which were seen, and UserError where a process
    has the number of another or expects another number of processes.
    """
    end = time.monotonic() + timeout
    _listen(place, end, timeout) if place.process == 0 else _answer(place, end, timeout)


def _listen(place: Place, end: float, timeout: float) -> None:
    """Process 0: hear every other one, then tell them all."""
    count, port = place.processes, int(place.coordinator.rpartition(":")[2])
    seen: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_server(port))
        while len(seen) < count - 1:
            server.settimeout(max(0.01, end - time.monotonic()))
            try:
                peer, _ = server.accept()
            except TimeoutError:
                missing = [str(i) for i in range(1, count) if i not in seen]
                raise RunError(
                    f"{count} processes were expected and {len(seen) + 1} seen within {timeout:g} s at {place.coordinator}. "
                    f"Missing: {', '.join(missing[:20])}. Start them all, with the same --coordinator and --num_processes."
                ) from None
            stack.enter_context(peer)
            if (said := _hear(peer)) is None:  # not one of ours
                continue
            number, expected = said
            if expected != count or not 0 < number < count or number in seen:
                raise UserError(
                    f"A process says that it is number {number} of {expected}; process 0 expects {count}, each with a number of "
                    "its own. Give every process the same --num_processes and its own --process_id."
                )
            seen[number] = peer
        for peer in seen.values():
            with contextlib.suppress(OSError):
                peer.sendall(HEARD)


def _server(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024)
    except OSError as error:
        raise UserError(f"Process 0 cannot listen on port {port}: {error.strerror}. Choose another --coordinator.") from None


def _hear(peer: socket.socket) -> tuple[int, int] | None:
    peer.settimeout(5)
    try:
        number, expected = peer.recv(LINE).split()
        return int(number), int(expected)
    except (OSError, ValueError):
        return None


def _answer(place: Place, end: float, timeout: float) -> None:
    """Any other process: find process 0, say who this is, and wait until all have come."""
    host, _, port = place.coordinator.rpartition(":")
    reached = False
    while time.monotonic() < end:
        try:
            with socket.create_connection((host, int(port)), timeout=max(0.01, end - time.monotonic())) as server:
                reached = True
                server.sendall(f"{place.process} {place.processes}".encode())
                if server.recv(len(HEARD)) == HEARD:
                    return
                raise RunError(f"Process 0 at {place.coordinator} ended before all {place.processes} had come: see what it says.")
        except OSError:
            time.sleep(RETRY)
    what = "still waits for others" if reached else "was not reached"
    raise RunError(
        f"Process {place.process} of {place.processes}: process 0 {what} at {place.coordinator} after {timeout:g} s. "
        "Is that its address, and are all of them started?"
    )
