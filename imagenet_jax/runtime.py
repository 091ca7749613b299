"""What surrounds the program: the compilation cache, signals that ask it to stop, versions, and who it is among processes."""

import os
import pathlib
import platform
import signal
import subprocess
import sys
import types
from typing import Any

import jax

import imagenet_jax

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
    """Remembers SIGINT or SIGTERM, so that the loop can save before the process leaves. A second signal changes nothing.

    Use as a context manager in the main thread; the former handlers come back at the end.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            print(f"\n{self.received.name}: saving, then stopping.", file=sys.stderr, flush=True)


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
