"""One process a contestant, so that no thread pool, import or heap of one touches another.

Its cores are set before it starts, hence before anything is imported. Between its turns the whole process group is stopped
(SIGSTOP): it cannot go on filling buffers at the expense of whose turn it is. A turn starts with a drain: batches made earlier are
taken and not counted, and the clock runs from the arrival of one batch to that of another.
"""

import contextlib
import importlib
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from imagenet_jax.bench import quality
from imagenet_jax.bench.task import Task
from imagenet_jax.errors import UserError

# More batches than any contestant holds: tf.data as flax sets it up prefetches 10, a worker process 2, DALI 2, our loader 4.
DRAIN = 14
PINNED = hasattr(os, "sched_setaffinity")  # not on macOS: there a contestant only starts as many threads as it has cores
PATIENCE = 600  # seconds without an answer after which a contestant counts as hanging


class Absent(Exception):
    """A contestant that cannot be imported here."""


class Failed(Exception):
    """A contestant that broke down."""


class Contestant:
    """The process of one contestant, stopped whenever it is not asked for something. Close it at the end."""

    def __init__(self, module: str, task: Task, log: pathlib.Path) -> None:
        """Start `imagenet_jax.bench.<module>` and warm it up. Its output goes to `log`. Raises Absent or Failed."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, module, task, log))
        with _pinned(task.cores):  # a process inherits its parent's cores
            self._process.start()
        theirs.close()
        try:
            self.version: str = self._answer()
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def ask(self, question: str, **settings: Any) -> Any:
        """`turn`, `quality` or `split` (see below), answered in the contestant's process. Raises Failed."""
        try:
            self._signal(signal.SIGCONT)
            self._pipe.send((question, settings))
            answer = self._answer()
            self._signal(signal.SIGSTOP)
        except BaseException:  # what broke down must not run on beside the others
            self.close()
            raise
        return answer

    def close(self) -> None:
        """End it and all that it started."""
        if self._pipe.closed:
            return
        with contextlib.suppress(ProcessLookupError):  # it died, or has no group of its own yet
            self._signal(signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _answer(self) -> Any:
        try:
            if not self._pipe.poll(PATIENCE):
                raise Failed(f"no answer in {PATIENCE} s")
            kind, answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise Failed(f"its process ended with code {self._process.exitcode}") from None
        if kind is not None:
            raise kind(answer)
        return answer

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid or 0, number)


def visible_cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if PINNED else list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def _pinned(count: int) -> Iterator[None]:
    """Within it, only the first `count` of the visible cores; on systems without affinity, all of them."""
    cores = visible_cores()
    if count > len(cores):
        raise UserError(f"--cores asks for {count}; visible here: {len(cores)}.")
    if not PINNED:
        yield
        return
    os.sched_setaffinity(0, cores[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _serve(pipe: multiprocessing.connection.Connection, module: str, task: Task, log: pathlib.Path) -> None:
    """The contestant's side: answer questions until the pipe closes. Each answer is (None, it) or (exception class, its text)."""
    os.setpgid(0, 0)  # a group of its own: its workers are stopped with it
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}  # CPUs are compared
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    try:
        contestant = importlib.import_module(f"imagenet_jax.bench.{module}")
        batches = contestant.batches(task)
        _turn(batches, 0.0)
        pipe.send((None, contestant.version()))
    except (ImportError, UserError) as error:  # UserError: an engine of ours without its package
        pipe.send((Absent, str(error)))
        return
    except Exception as error:  # of a library that we do not know: reported by name, and the others go on
        traceback.print_exc()
        pipe.send((Failed, f"{type(error).__name__}: {error}"))
        return
    questions: dict[str, Callable] = {"turn": lambda seconds: _turn(batches, seconds)}
    if square := contestant.square(task):
        questions["quality"] = lambda crops: quality.measure(square, task.images, task.size, crops)
    if hasattr(contestant, "split"):
        questions["split"] = lambda seconds: contestant.split(task, seconds)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            question, settings = pipe.recv()
            try:
                pipe.send((None, questions[question](**settings) if question in questions else None))
            except Exception as error:
                traceback.print_exc()
                pipe.send((Failed, f"{type(error).__name__}: {error}"))


def _turn(batches: Iterator[np.ndarray], seconds: float) -> float:
    """Drain, then take batches for `seconds`: images a second from the arrival of the last of the drain to that of the last."""
    for _ in range(DRAIN):
        next(batches)
    start, images = time.perf_counter(), 0
    while True:
        images += len(next(batches))
        if (elapsed := time.perf_counter() - start) >= seconds:
            return images / elapsed
