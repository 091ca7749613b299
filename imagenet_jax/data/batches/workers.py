"""Worker processes for hosts where one process cannot feed the accelerators: each runs the same threads over its rows.

Pixels come back through shared memory, in as many slots as batches may be under way, and are copied out of it, so that what the
consumer holds is nobody else's. Workers are spawned, never forked: the parent has threads and a jax runtime.
"""

import itertools
import math
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Generator
from multiprocessing import connection, shared_memory, util
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.data.batches.threads import Batch, fresh, in_threads, visible_cores
from imagenet_jax.data.batches.views import Pixels, Rows, Views, side_at
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.records import Source
from imagenet_jax.errors import RunError

CAUSES = {
    -signal.SIGKILL: ": it was killed, often for want of memory",
    -signal.SIGBUS: ": shared memory is full; a container gets more by docker run --shm-size=8g",
}
PATIENCE = 60.0  # seconds without a word from a worker, of which its start takes two or three


class Worker(NamedTuple):
    """One worker process, its share of the rows, and our ends of what we share with it."""

    name: str
    rows: slice  # of our batch
    process: Any  # multiprocessing.process.BaseProcess
    answers: connection.Connection
    permits: Any  # a semaphore of free slots
    memory: shared_memory.SharedMemory
    shape: tuple[int, int]  # of the memory: slots, and the bytes of the largest batch


def in_processes(
    source: Source, pixels: Pixels, views: Views, rows: Rows, threads: int, processes: int, prefetch: int
) -> Generator[Batch]:
    """What `in_threads` gives, made by `processes` workers of `threads` threads each (0: the visible cores, shared out).

    Raises RunError where a worker fails, dies, or says nothing for PATIENCE seconds.
    """
    processes = min(processes, rows.count)
    threads = threads or max(1, visible_cores() // processes)
    bounds = [rows.count * i // processes for i in range(processes + 1)]
    workers: list[Worker] = []
    # At exit too, for a generator that nobody closes: multiprocessing waits there for children, and ours do not heed its SIGTERM.
    end = util.Finalize(None, _end, (workers,), exitpriority=10)
    try:
        for number, (first, last) in enumerate(itertools.pairwise(bounds)):
            share = Rows(rows.first + first, last - first)
            workers.append(_start(number, slice(first, last), source, pixels, views, share, threads, prefetch))
        for place, step in enumerate(views.steps):
            side = side_at(step, views.sizes, pixels)
            image = fresh((rows.count, side, side, 3))
            parts = [_take(worker, place, image[worker.rows]) for worker in workers]
            yield {"image": image} | {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    finally:
        end()


def _end(workers: list[Worker]) -> None:
    """Leave neither processes nor shared memory behind, nor anything in the list."""
    for worker in workers:
        worker.process.kill()
    while workers:
        worker = workers.pop()
        worker.process.join()
        worker.answers.close()
        worker.memory.close()
        worker.memory.unlink()


def _start(
    number: int, part: slice, source: Source, pixels: Pixels, views: Views, rows: Rows, threads: int, prefetch: int
) -> Worker:  # fmt: skip
    context = multiprocessing.get_context("spawn")
    largest = max((side for _, side in views.sizes), default=pixels.image_size)
    shape = (prefetch + 2, rows.count * largest * largest * 3)
    memory = shared_memory.SharedMemory(create=True, size=shape[0] * shape[1])
    here, there = context.Pipe(duplex=False)
    permits = context.Semaphore(shape[0])
    engine = (pixels.engine.name, pixels.engine.interpolation)
    task = (source, engine, pixels[1:], views, rows, threads, prefetch, memory.name, shape, permits, there)
    process = context.Process(target=_work, args=task, name=f"data-worker-{number}", daemon=True)
    process.start()
    there.close()
    return Worker(f"Data worker {number} (process {process.pid})", part, process, here, permits, memory, shape)


def _take(worker: Worker, place: int, out: np.ndarray) -> Batch:
    """Copy the pixels of the worker's batch number `place` into `out`; returns the rest of that batch."""
    if not worker.answers.poll(PATIENCE):
        raise RunError(f"{worker.name} has said nothing for {PATIENCE:g} s. See where it hangs: py-spy dump --pid PROCESS.")
    try:
        answer = worker.answers.recv()
    except (EOFError, OSError):  # OSError: it died in the middle of its answer
        worker.process.join(5)
        code = worker.process.exitcode
        raise RunError(f"{worker.name} died, exit code {code}{CAUSES.get(code, '')}.") from None
    if isinstance(answer, Exception):
        raise answer
    slot = np.ndarray(worker.shape, np.uint8, worker.memory.buf)[place % worker.shape[0]]
    out[...] = slot[: out.size].reshape(out.shape)
    worker.permits.release()
    return answer


def _work(
    source: Source,
    engine: tuple[str, str],
    sizes: tuple[Any, ...],
    views: Views,
    rows: Rows,
    threads: int,
    prefetch: int,
    memory: str,
    shape: tuple[int, int],
    permits: Any,
    answers: connection.Connection,
) -> None:
    """The worker: the same threads, into shared memory."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # sent to all at once: the parent saves first, and then ends us
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    shared = shared_memory.SharedMemory(memory)
    slots = np.ndarray(shape, np.uint8, shared.buf)

    places = itertools.count()

    def free_slot(shape: tuple[int, ...]) -> np.ndarray:
        permits.acquire()
        return slots[next(places) % len(slots)][: math.prod(shape)].reshape(shape)

    try:
        pixels = Pixels(decode.engine(*engine), *sizes)
        for batch in in_threads(source, pixels, views, rows, threads, prefetch, free_slot):
            answers.send({key: value for key, value in batch.items() if key != "image"})
    except RunError as error:
        answers.send(error)
    except Exception:
        answers.send(RuntimeError(f"in a data worker:\n{traceback.format_exc()}"))


def _follow_parent() -> None:
    """Leave when the parent dies, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
