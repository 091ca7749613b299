"""Checkpoints: every bit comes back, a background save is not disturbed, and what is no checkpoint is not taken for one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import checkpoint, tree
from imagenet_jax.errors import RunError, UserError
from imagenet_jax.state import TrainState


def state(step: int, fill: float = 0.0, size: int = 4) -> TrainState:
    key = jax.random.key(step)
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params={"a": {"kernel": jax.random.normal(key, (size, 3)) + fill}},
        batch_stats={"bn": {"mean": jnp.arange(3.0)}},
        opt_state=({"trace": jnp.ones((2,), jnp.bfloat16)},),
        ema={},
    )


def same(a: TrainState, b: TrainState) -> bool:
    pairs = zip(tree.paths(a), tree.paths(b), strict=True)
    return all(p == q and x.dtype == y.dtype and np.array_equal(x, y) for (p, x), (q, y) in pairs)


def test_save_and_restore_give_back_every_leaf(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as c:
        assert c.latest() is None
        c.save(state(7))
        c.wait()
        assert c.latest() == 7
        assert same(c.restore(7, state(0)), state(7))
    assert same(checkpoint.restore(tmp_path / "checkpoints", 7, state(0)), state(7))


def test_the_directory_of_a_step(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as c:
        c.save(state(7))
        c.wait()
    folder = tmp_path / "checkpoints" / "00000007"
    assert (folder / "state").is_dir()
    manifest = json.loads((folder / "manifest" / "metadata").read_text())
    assert (manifest["format"], manifest["step"]) == (1, 7)
    assert manifest["leaves"]["params/a/kernel"] == [[4, 3], "float32"]


def test_the_newest_are_kept(tmp_path):
    with checkpoint.Checkpoints(tmp_path, keep=2) as c:
        for step in (1, 2, 3, 4):
            c.save(state(step))
        c.wait()
        assert sorted(d.name for d in c.directory.iterdir()) == ["00000003", "00000004"]


def test_a_save_under_way_is_not_touched_by_the_next_steps(tmp_path):
    """The step donates the state's buffers, so what is being written must be a copy."""
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    current = state(0, size=1_000_000)
    want = np.asarray(current.params["a"]["kernel"]).copy()
    with checkpoint.Checkpoints(tmp_path) as c:
        c.save(current)
        for _ in range(20):
            current = advance(current)
        jax.block_until_ready(current)
        c.wait()
        restored = c.restore(0, state(0, size=1_000_000))
    np.testing.assert_array_equal(restored.params["a"]["kernel"], want)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nonfinite_leaf_is_never_committed(tmp_path, bad):
    with checkpoint.Checkpoints(tmp_path) as c:
        c.save(state(1))
        with pytest.raises(RunError, match="step 2 is not finite in params/a/kernel"):
            c.save(state(2, fill=bad))
        c.wait()
        assert c.latest() == 1


def test_what_is_no_checkpoint_is_not_taken_for_one(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as c:
        c.save(state(5))
        c.wait()
        (c.directory / "00999999").mkdir()  # orbax alone would take it for the newest
        (c.directory / "notes").mkdir()
        broken = c.directory / "00000009"
        (broken / "state").mkdir(parents=True)
        (broken / "manifest").mkdir()
        (broken / "manifest" / "metadata").write_text('{"format": 1, "st')
        assert c.latest() == 5
        with pytest.raises(UserError, match="00000009 is no checkpoint"):
            c.restore(9, state(0))
    with checkpoint.Checkpoints(tmp_path) as c:  # as a rerun: orbax must not count the strays either
        c.save(state(6))
        c.wait()
        assert c.latest() == 6
    assert (tmp_path / "checkpoints" / "notes").is_dir()
    assert len(list((tmp_path / "checkpoints").glob("*.unreadable-*"))) == 2


def test_steps_of_which_none_is_readable_are_no_fresh_start(tmp_path):
    (tmp_path / "checkpoints" / "00000010" / "state").mkdir(parents=True)
    with pytest.raises(RunError, match="holds 1 step, and none has a readable manifest"):
        checkpoint.Checkpoints(tmp_path)


def test_another_model_is_refused_with_the_first_differences(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as c:
        c.save(state(1))
        c.wait()
        with pytest.raises(UserError, match=r"1 leaves differ.*params/a/kernel is \[\[4, 3\], 'float32'\], wanted \[\[5, 3\]"):
            c.restore(1, state(0, size=5))
