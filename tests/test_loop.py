"""The loop's promises: it does not read from the device between log lines, and it calls its hooks at the right steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.array import ArrayImpl

from imagenet_jax import loop
from imagenet_jax.errors import RunError


@jax.jit
def count_up(state, batch):
    bad = (batch == -1).astype(jnp.int32)
    sums = {
        "images": jnp.asarray(4, jnp.int32),
        "loss": jnp.asarray(2.0) * 4,
        "top1": jnp.asarray(3, jnp.int32),
        "nonfinite": bad,
        "learning_rate": jnp.asarray(0.5),
    }
    return state + 1, sums


class Recorder:
    """Hooks that remember what was called."""

    def __init__(self, stop_at=None):
        self.windows, self.saved, self.evaluated, self.ticks, self._stop_at = [], [], [], 0, stop_at
        self.hooks = loop.Hooks(
            log=self.windows.append,
            settle=lambda state: state,
            save=lambda state: self.saved.append(self.ticks),
            evaluate=lambda step, state: self.evaluated.append(step),
            tick=self._tick,
            stopping=lambda: self.ticks == self._stop_at,
        )

    def _tick(self):
        self.ticks += 1


def fit(recorder, stop=20, bad=(), **kwargs):
    batches = iter([jnp.asarray(-1 if i in bad else i) for i in range(stop)])
    settings = {"log_interval": 5, "save_interval": 8, "eval_steps": frozenset({10}), **kwargs}
    return loop.fit(jnp.asarray(0), count_up, batches, recorder.hooks, start=0, stop=stop, **settings)


def test_hooks_are_called_at_their_steps():
    r = Recorder()
    assert int(fit(r)) == 20
    assert [w.step for w in r.windows] == [5, 10, 15, 20]
    assert (r.saved, r.evaluated, r.ticks) == ([8, 10, 16], [10], 20)  # what is evaluated is saved
    assert (r.windows[0].loss, r.windows[0].top1, r.windows[0].learning_rate) == (2.0, 0.75, 0.5)


def test_the_last_window_may_be_shorter():
    r = Recorder()
    fit(r, stop=7)
    assert [w.step for w in r.windows] == [5, 7]


def test_stopping_leaves_after_the_step_and_logs_it():
    r = Recorder(stop_at=7)
    assert int(fit(r)) == 7
    assert [w.step for w in r.windows] == [5, 7]
    assert r.saved == []  # the caller saves what comes back


def test_a_stop_during_an_evaluation_leaves_at_its_step():
    """So that the rerun makes that evaluation again, instead of passing it by."""
    r = Recorder()
    r.hooks.evaluate = lambda step, state: setattr(r, "_stop_at", r.ticks)
    assert int(fit(r)) == 10


def test_a_stop_before_the_first_step_takes_none():
    r = Recorder(stop_at=0)
    assert int(fit(r)) == 0
    assert r.windows == []


@pytest.mark.parametrize(("bad", "named"), [((7,), "step 7"), ((11, 12), "steps 11, 12")])
def test_nonfinite_steps_are_named_within_a_log_interval(bad, named):
    r = Recorder()
    with pytest.raises(RunError, match=f"not finite at {named}"):
        fit(r, bad=bad)
    assert r.ticks - bad[0] <= 5


def test_up_to_max_skipped_in_a_row_pass_and_count_in_no_metric():
    r = Recorder()
    assert int(fit(r, bad=(3, 4, 9, 10), max_skipped=2)) == 20  # the second pair lies in two windows
    assert [w.skipped for w in r.windows] == [(3, 4), (9,), (10,), ()]
    assert [(w.loss, w.top1) for w in r.windows] == [(2.0, 0.75)] * 4


def test_one_more_than_max_skipped_in_a_row_ends_the_run_over_log_lines_too():
    r = Recorder()
    with pytest.raises(RunError, match="not finite at steps 10, 11"):  # and 8 and 9, which the window before has told of
        fit(r, bad=(8, 9, 10, 11), max_skipped=3)
    assert [w.skipped for w in r.windows] == [(), (8, 9)]


def test_a_log_line_waits_for_a_finite_step():
    r = Recorder()
    fit(r, bad=(5, 6, 7, 8, 9), max_skipped=9)
    assert [(w.step, w.skipped, w.loss) for w in r.windows[:2]] == [(5, (), 2.0), (15, (5, 6, 7, 8, 9), 2.0)]
    assert r.saved == [8, 10, 16]  # the state is that of step 5, which is finite


def test_nothing_is_saved_after_a_nonfinite_step():
    r = Recorder()
    with pytest.raises(RunError, match="step 2"):
        fit(r, bad=(2,), log_interval=1000)
    assert r.saved == []


def syncs(steps: int, monkeypatch) -> int:
    """How often a run of `steps` steps between two log lines copies an array to the host."""
    seen = []
    original = ArrayImpl._value

    def spy(array):
        seen.append(array)
        return original.fget(array)

    monkeypatch.setattr(ArrayImpl, "_value", property(spy))
    fit(Recorder(), stop=steps, log_interval=steps, save_interval=steps + 1, eval_steps=frozenset())
    monkeypatch.undo()
    return len(seen)


def test_the_loop_reads_back_only_when_it_logs(monkeypatch):
    """A transfer guard does not see float(loss) on CPU, so every copy to the host is counted: one a sum and step, when it logs."""
    per_step = 5  # sums of count_up
    assert syncs(10, monkeypatch) == 10 * per_step
    assert syncs(40, monkeypatch) == 40 * per_step

    fetched_at = []
    original = jax.device_get

    def spy(tree):
        fetched_at.append(recorder.ticks)
        return original(tree)

    recorder = Recorder()
    monkeypatch.setattr(jax, "device_get", spy)
    fit(recorder, stop=40, log_interval=20, save_interval=1000, eval_steps=frozenset())
    assert fetched_at == [20, 40]


def test_the_count_above_sees_a_read_in_the_step(monkeypatch):
    """The test of the test: a step that looks at its loss is found out."""
    plain = count_up

    def nosy(state, batch):
        state, sums = plain(state, batch)
        float(sums["loss"])
        return state, sums

    seen = []
    original = ArrayImpl._value
    monkeypatch.setattr(ArrayImpl, "_value", property(lambda a: (seen.append(a), original.fget(a))[1]))
    batches = iter([jnp.asarray(i) for i in range(10)])
    hooks = Recorder().hooks
    loop.fit(jnp.asarray(0), nosy, batches, hooks, start=0, stop=10, log_interval=10, save_interval=99, eval_steps=frozenset())
    assert len(seen) > 10 * 5


def test_ahead_keeps_order_and_puts_before_it_is_asked():
    put = []

    def place(x):
        put.append(x)
        return x * 10

    batches = loop.ahead(iter(range(6)), place, depth=2)
    assert next(batches) == 0
    assert put == [0, 1, 2]
    assert list(batches) == [10, 20, 30, 40, 50]


def test_out_of_memory_names_a_batch_size_to_try():
    with (
        pytest.raises(RunError, match=r"Out of memory at batch_size=256. Try --config.batch_size=128"),
        loop.out_of_memory_hint(256, 32),
    ):
        jnp.zeros((1 << 46,), np.float32).block_until_ready()  # 256 TiB
    with pytest.raises(RunError, match="cannot be halved"), loop.out_of_memory_hint(32, 32):
        jnp.zeros((1 << 46,), np.float32).block_until_ready()
