"""The training loop: feed, step, and every so often log, evaluate and save. No model, no config, no files of its own.

The loop stays ahead of the device: it reads numbers back once a log interval and otherwise only waits for the step before the
last one, which bounds the memory of what is under way.
"""

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np

from imagenet_jax.errors import RunError
from imagenet_jax.state import TrainState

IN_FLIGHT = 2  # steps dispatched and not finished


@dataclasses.dataclass(frozen=True)
class Window:
    """What happened since the last log line, on the host. `top1` is a share of the images, `data_wait` one of the time.

    `skipped` are the steps that were not finite; they count neither in loss nor in top1.
    Speeds leave out compilation, evaluation and saving; a window that was nothing else has speed 0.
    """

    step: int
    loss: float
    top1: float
    learning_rate: float
    images_per_second: float
    data_wait: float
    seconds_a_step: float
    skipped: tuple[int, ...]


@dataclasses.dataclass
class Hooks:
    """What the loop calls, with the step that was just finished."""

    log: Callable[[Window], None]
    settle: Callable[[TrainState], TrainState]  # what a state goes through before it is evaluated or saved
    save: Callable[[TrainState], None]
    evaluate: Callable[[int, TrainState], Any]
    tick: Callable[[], None]  # after every step: a progress bar
    stopping: Callable[[], bool]  # asked before every step, and after every batch of an evaluation: leave the loop


def fit(
    state: TrainState,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Any]],
    batches: Iterator[Any],
    hooks: Hooks,
    *,
    start: int,
    stop: int,
    log_interval: int,
    save_interval: int,
    eval_steps: frozenset[int],
    max_skipped: int = 0,
) -> TrainState:
    """Take steps start .. stop - 1 (fewer when `hooks.stopping` says so) and return the state after the last one.

    What was evaluated is saved too, so that the best can be kept. Raises RunError when more than `max_skipped` steps in a row were
    not finite, at the next log line at the latest and before anything is saved. Saving the state that comes back is up to the
    caller.
    """
    window = _Accumulator(max_skipped)
    done, compiled = start, None
    for step in range(start, stop):
        if hooks.stopping():
            break
        with window.waiting():
            batch = next(batches)
        with jax.transfer_guard("disallow"):
            state, sums = train_step(state, batch)
        window.add(sums)
        done = step + 1
        hooks.tick()
        shapes = jax.tree.map(np.shape, batch)
        if shapes != compiled:  # the step included compilation: it counts in the metrics, not in the speed
            jax.block_until_ready(sums)
            window.forget_time()
            compiled = shapes
        logging, saving, evaluating = done % log_interval == 0, done % save_interval == 0, done in eval_steps
        if logging or saving or evaluating:
            seen = window.close(done)  # raises before anything is saved
            if logging and seen:
                hooks.log(seen)
                window = _Accumulator(max_skipped, window.streak)
        if evaluating or saving:
            state = hooks.settle(state)
        if evaluating:
            hooks.evaluate(done, state)
        if evaluating or saving:
            hooks.save(state)
            window.restart_clock()
    if window and (seen := window.close(done)):
        hooks.log(seen)
    return state


class _Accumulator:
    """The sums of the steps since the last log line, on the device until `close` fetches them at once."""

    def __init__(self, max_skipped: int, streak: int = 0) -> None:
        self._max_skipped, self._streak_before, self.streak = max_skipped, streak, streak
        self._sums: list[Any] = []
        self._untimed = 0  # steps at the beginning whose time does not count
        self._seconds = self._waited = 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave out the time since the last step."""
        self._clock = time.perf_counter()

    def __bool__(self) -> bool:
        return bool(self._sums)

    def forget_time(self) -> None:
        """Leave out all time so far, and the steps that it was spent on."""
        self._untimed = len(self._sums)
        self._seconds = self._waited = 0.0
        self.restart_clock()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def add(self, sums: Any) -> None:
        self._sums.append(sums)
        if len(self._sums) > IN_FLIGHT:
            jax.block_until_ready(self._sums[-1 - IN_FLIGHT])
        now = time.perf_counter()
        self._seconds += now - self._clock
        self._clock = now

    def close(self, step: int) -> Window | None:
        """The window up to `step`; None where no step of it was finite, so that there are no numbers yet."""
        sums = jax.device_get(self._sums)
        now = time.perf_counter()
        self._seconds += now - self._clock
        self._clock = now
        self._check(sums, step)
        finite = [s for s in sums if not s["nonfinite"]]
        if not finite:
            return None
        images = sum(int(s["images"]) for s in finite)
        timed = sums[self._untimed :]
        seconds = max(self._seconds, 1e-9)
        return Window(
            step=step,
            loss=math.fsum(float(s["loss"]) for s in finite) / images,
            top1=sum(int(s["top1"]) for s in finite) / images,
            learning_rate=float(sums[-1]["learning_rate"]),
            images_per_second=sum(int(s["images"]) for s in timed) / seconds,
            data_wait=min(1.0, self._waited / seconds),
            seconds_a_step=seconds / len(timed) if timed else 0.0,
            skipped=tuple(step - len(sums) + i for i, s in enumerate(sums) if s["nonfinite"]),
        )

    def _check(self, sums: list[Any], step: int) -> None:
        """Count the steps in a row that were not finite; `streak` are those at the end."""
        streak = longest = self._streak_before
        for s in sums:
            streak = streak + 1 if s["nonfinite"] else 0
            longest = max(longest, streak)
        self.streak = streak
        if longest > self._max_skipped:
            bad = [str(step - len(sums) + i) for i, s in enumerate(sums) if s["nonfinite"]]
            raise RunError(
                f"Loss or gradient not finite at step{'s' if len(bad) > 1 else ''} {', '.join(bad[:10])}. "
                "The state was left as it was before, and nothing is saved. In a new --workdir, lower the learning rate, lengthen "
                "the warm-up, or set clip_norm; --config.max_skipped=K lets up to K such steps in a row pass."
            )


def ahead(batches: Iterator[Any], put: Callable[[Any], Any], depth: int = 2) -> Generator[Any]:
    """`put` each host batch on the devices `depth` batches before it is asked for."""
    ready: collections.deque[Any] = collections.deque()
    for batch in batches:
        ready.append(put(batch))
        if len(ready) > depth:
            yield ready.popleft()
    yield from ready


@contextlib.contextmanager
def out_of_memory_hint(batch_size: int, multiple: int, flag: str = "--config.batch_size") -> Iterator[None]:
    """Turn XLA's out-of-memory error into a message with a batch size to try: half, as a multiple of `multiple`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        smaller = batch_size // 2 // multiple * multiple
        remedy = f"Try {flag}={smaller}." if smaller else "The batch cannot be halved: use smaller images, or more devices."
        detail = str(error).split("\n")[0].removeprefix("RESOURCE_EXHAUSTED: ")
        raise RunError(
            f"Out of memory at {flag.removeprefix('--').removeprefix('config.')}={batch_size}. {remedy} ({detail})"
        ) from error
