"""What surrounds the program: compilation cache, signals that ask it to stop, the workdir's lock, the watchdog, versions, and who
it is among processes."""

import contextlib
import errno
import faulthandler
import fcntl
import json
import os
import pathlib
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import jax

import imagenet_jax
from imagenet_jax.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "array_record", "tensorflow-datasets")


def setup() -> None:
    """Switch on jax's persistent compilation cache, in a directory that only this user can write.

    Whoever can write that cache can run code in this process, so it is never a shared one. JAX_COMPILATION_CACHE_DIR overrides.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        cache = base / "imagenet_jax" / "jax"
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            cache.chmod(0o700)
            jax.config.update("jax_compilation_cache_dir", str(cache))
        except OSError as error:
            print(f"No compilation cache: {cache} cannot be written ({error.strerror}). Set XDG_CACHE_HOME.", file=sys.stderr)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class StopSignal:
    """Remembers SIGINT, SIGTERM or SIGUSR1 (SLURM's --signal), so that the loop can save before the process leaves.

    A second signal changes nothing. One that comes while XLA compiles is heard as soon as that returns.
    Use as a context manager in the main thread; the former handlers come back at the end.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self._former[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            print(f"\n{self.received.name}: saving, then stopping.", file=sys.stderr, flush=True)


class Watchdog:
    """Prints the stacks of all threads on stderr when `beat` is not called for `seconds` (0: never). The run is left alone.

    A thread of ours looks at them, holding Python's lock. faulthandler's own, which needs no lock, may crash on the stack of a
    thread that goes on meanwhile (seen once, with SIGSEGV): it speaks only where ours gets no turn, and so nobody does.
    """

    def __init__(self, seconds: float):
        self._seconds, self._last, self._over = seconds, time.monotonic(), threading.Event()

    def __enter__(self) -> "Watchdog":
        self.beat()
        if self._seconds > 0:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self._seconds > 0:
            self._thread.join()

    def beat(self) -> None:
        """Something was finished."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        shown = self._last
        while not self._over.wait(self._seconds / 10):
            faulthandler.dump_traceback_later(self._seconds, file=2)
            if time.monotonic() - max(self._last, shown) > self._seconds:
                print(f"Nothing was finished for {self._seconds:g} s. What all threads are at:", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(file=2)
                shown = time.monotonic()
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Hold `workdir` (made if it is absent) for this process. Raises UserError, naming the holder, where another one does.

    The lock is flock's, on workdir/.lock: the kernel lets go of it when its process dies, however that happens. NFS since version 4
    and Lustre mounted with `flock` pass it on to other hosts; a file system that has no locks is used without, which is said.
    """
    path = workdir / ".lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = _lock(path)
    except BlockingIOError:
        raise UserError(f"{workdir} is in use by {_holder(path)}. Wait for it, stop it, or use another --workdir.") from None
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            print(f"{workdir} is on a file system without locks: see that no other run uses it.", file=sys.stderr, flush=True)
            yield
            return
        raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}.") from None
    with file:
        if file.read():
            print(f"{workdir} was held by {_holder(path)}, which died. Its lock is taken over.", flush=True)
        file.seek(0)
        file.truncate()
        json.dump({"process": os.getpid(), "host": socket.gethostname()}, file)
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before it is let go


def _lock(path: pathlib.Path) -> Any:
    """The open and locked file. Raises BlockingIOError where another holds it."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.seek(0)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its former holder removed it between our two calls: there is another file by now, or none


def _holder(path: pathlib.Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {int(holder['process'])} on {holder['host']!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def is_main_process() -> bool:
    """Whether this process writes what exists once for the whole run."""
    return jax.process_index() == 0


def versions() -> dict[str, str]:
    """Of this package, Python and what decides about numbers."""
    from importlib import metadata

    found = {"imagenet_jax": imagenet_jax.__version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in PACKAGES}


def devices() -> dict[str, Any]:
    """Platform, kind and number of the devices, and the number of processes that share them."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
    }


def git_commit() -> str | None:
    """The checkout's commit, with "+changes" where tracked files differ from it; None where the package is no checkout."""
    here = pathlib.Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return (commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")) or None
    except (OSError, subprocess.TimeoutExpired):
        return None
