"""Start one run as N processes on this host: python launch/local.py --processes=2 --config=configs/quickstart.py --workdir=runs/two

Every other flag goes to imagenet_jax.main. CUDA_VISIBLE_DEVICES, where it is set, is dealt out: of 0,1,2,3 the first of two
processes sees 0,1. Each line of output carries its process's number. SIGINT, SIGTERM and SIGUSR1 are passed on. When a process
fails, the others are asked to end, and killed 60 seconds later. The exit code is that of the first that failed.
"""

import argparse
import contextlib
import os
import queue
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

GRACE = 60  # seconds from SIGTERM to SIGKILL for the others, once a process has failed
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

# What a process is started with: its command, and what it sees beyond our environment.
Start = tuple[list[str], dict[str, str]]


def main(argv: list[str]) -> int:
    """Parse the flags, start the processes, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python launch/local.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--processes", type=int, required=True, metavar="N")
    parser.add_argument("--dry_run", action="store_true", help="print the commands, then stop")
    flags, passed = parser.parse_known_args(argv)
    if flags.processes < 1:
        parser.error(f"--processes={flags.processes} must be at least 1.")
    try:
        starts = plan(flags.processes, passed, free_port(), os.environ)
    except ValueError as error:
        parser.error(str(error))
    if flags.dry_run:
        for command, extra in starts:
            print(shlex.join([*(f"{name}={value}" for name, value in extra.items()), *command]))
        return 0
    return supervise(starts)


def plan(count: int, passed: list[str], port: int, env: Mapping[str, str]) -> list[Start]:
    """The `count` processes of a run whose process 0 listens on `port`; `passed` are the flags of imagenet_jax.main.

    Raises ValueError where the GPUs that CUDA_VISIBLE_DEVICES names cannot be dealt out evenly.
    """
    gpus = env["CUDA_VISIBLE_DEVICES"].split(",") if env.get("CUDA_VISIBLE_DEVICES") else []
    if len(gpus) % count:
        raise ValueError(f"--processes={count} does not divide the {len(gpus)} GPUs of CUDA_VISIBLE_DEVICES={','.join(gpus)}.")
    share = len(gpus) // count
    shared = [sys.executable, "-m", "imagenet_jax.main", *passed, f"--coordinator=localhost:{port}", f"--num_processes={count}"]
    return [
        (
            [*shared, f"--process_id={i}"],
            {"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * share : (i + 1) * share])} if gpus else {},
        )
        for i in range(count)
    ]


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def supervise(starts: list[Start], grace: float = GRACE) -> int:
    """Run the processes until all have ended; the exit code of the first that failed (128 + n for a signal n), else 0."""
    running: dict[int, subprocess.Popen[str]] = {}
    ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()  # (which, exit code), in the order of their ends

    def pass_on(number: int, frame: object) -> None:
        for process in running.values():
            process.send_signal(number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    threads = []
    try:
        for i, (command, extra) in enumerate(starts):
            # A session of its own: the terminal's Ctrl-C reaches it through us, once.
            running[i] = subprocess.Popen(
                command, env={**os.environ, **extra}, start_new_session=True, text=True, errors="replace",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            # Its end is not that of its output, which its own children may hold open.
            threads += [
                threading.Thread(target=_tail, args=(i, running[i])),
                threading.Thread(target=_wait, args=(i, running[i], ended)),
            ]
        for thread in threads:
            thread.start()
        first, deadline = 0, None
        for _ in starts:
            try:
                i, code = ended.get(timeout=None if deadline is None else max(0, deadline - time.monotonic()))
            except queue.Empty:
                break  # the grace is over: killed below
            print(f"[{i}] ended with exit code {code}", flush=True)
            if code and not first:
                first, deadline = code, time.monotonic() + grace
                pass_on(signal.SIGTERM, None)
        return first
    finally:
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and whatever children are left
        for thread in threads:
            thread.join()


def _tail(i: int, process: subprocess.Popen[str]) -> None:
    assert process.stdout
    for line in process.stdout:
        print(f"[{i}] {line}", end="", flush=True)


def _wait(i: int, process: subprocess.Popen[str], ended: "queue.SimpleQueue[tuple[int, int]]") -> None:
    code = process.wait()
    ended.put((i, 128 - code if code < 0 else code))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
