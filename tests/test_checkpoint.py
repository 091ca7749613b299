"""Checkpoints: every bit comes back, a background save is not disturbed, and what is no checkpoint is not taken for one."""

import errno
import gc
import json
import os
import pathlib
import shutil

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
        assert same(c.restore_newest(state(0)), state(7))
    assert same(checkpoint.restore(tmp_path / "checkpoints", 7, state(0)), state(7))


def test_the_directory_of_a_step(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as c:
        c.save(state(7))
        c.wait()
    folder = tmp_path / "checkpoints" / "00000007"
    assert (folder / "state").is_dir()
    manifest = json.loads((folder / "manifest" / "metadata").read_text())
    assert (manifest["format"], manifest["step"]) == (2, 7)
    assert manifest["leaves"]["params/a/kernel"] == [[4, 3], "float32"]


def test_the_newest_are_kept(tmp_path):
    with checkpoint.Checkpoints(tmp_path, keep=2) as c:
        for step in (1, 2, 3, 4):
            c.save(state(step))
        c.wait()
        assert sorted(d.name for d in c.directory.iterdir()) == ["00000003", "00000004"]


def test_the_best_and_every_nth_are_kept_too(tmp_path):
    """Steps 10 .. 80: the best evaluated is 20, multiples of 30 stay, and the newest; a better step that is gone keeps nothing."""
    found = {10: 0.5, 20: 0.9, 40: 0.7, 55: 1.0}
    records = [{"kind": "eval", "step": s, "weights": "raw", "top1": top1} for s, top1 in found.items()]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    with checkpoint.Checkpoints(tmp_path, keep=1, keep_every=30) as c:
        for step in range(10, 90, 10):
            c.save(state(step))
            c.wait()
            assert 20 in checkpoint.steps(c.directory) or step < 20
        assert checkpoint.steps(c.directory) == [80, 60, 30, 20]
        assert checkpoint.best_step(tmp_path, [80, 60, 30, 20]) == 20
    assert checkpoint.best_step(tmp_path, [30]) is None


def damage(file: pathlib.Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 4
        file.write_bytes(data)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with two steps, to be copied."""
    folder = tmp_path_factory.mktemp("saved")
    with checkpoint.Checkpoints(folder) as c:
        for step in (5, 9):
            c.save(state(step, size=1000))
            c.wait()
    return folder


@pytest.fixture
def collected():
    """orbax leaves coroutines behind when it fails; collected here, they complain here and not in another test."""
    yield
    gc.collect()


LEFT_BEHIND = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@LEFT_BEHIND
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_whatever_happens_to_any_file_of_a_step_no_wrong_number_comes_back(saved, tmp_path, how, capsys):
    """Every file in turn: the newest state exactly, or, with one line that names the step, the one before it exactly."""
    like, fell_back = state(0, size=1000), []
    files = sorted(f.relative_to(saved) for f in (saved / "checkpoints" / "00000009").rglob("*") if f.is_file())
    for number, file in enumerate(files):
        workdir = tmp_path / str(number)
        shutil.copytree(saved, workdir)
        damage(workdir / file, how)
        capsys.readouterr()
        with checkpoint.Checkpoints(workdir) as c:
            restored = c.restore_newest(like)
            step = int(restored.step)
            assert same(restored, state(step, size=1000)), file
            said = capsys.readouterr().out
            assert said.count("\n") == (step == 5), said
            if step == 5:
                fell_back.append(file)
                assert "00000009" in said
                c.save(state(9, size=1000))  # orbax alone would skip it: the step was there
                c.wait()
                assert c.latest() == 9
                assert same(c.restore_newest(like), state(9, size=1000))
    data = max(files, key=lambda f: (saved / f).stat().st_size)
    assert data in fell_back  # the arrays themselves
    assert any("manifest" in f.parts for f in fell_back)


@LEFT_BEHIND
@pytest.mark.usefixtures("collected")
def test_when_all_steps_are_damaged_nothing_is_renamed_and_all_are_named(saved, tmp_path):
    shutil.copytree(saved / "checkpoints", tmp_path / "checkpoints")
    for step in ("00000005", "00000009"):
        damage(max((tmp_path / "checkpoints" / step).rglob("*"), key=lambda f: f.stat().st_size * f.is_file()), "flipped")
    before = sorted(tmp_path.rglob("*"))
    with (
        checkpoint.Checkpoints(tmp_path) as c,
        pytest.raises(RunError, match=r"no sound checkpoint: .*09 is damaged.*05 is damaged"),
    ):
        c.restore_newest(state(0, size=1000))
    assert sorted(tmp_path.rglob("*")) == before


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
        restored = c.restore_newest(state(0, size=1_000_000))
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
            checkpoint.restore(c.directory, 9, state(0))
    with checkpoint.Checkpoints(tmp_path) as c:  # as a rerun: orbax must not count the strays either
        c.save(state(6))
        c.wait()
        assert c.latest() == 6
    assert (tmp_path / "checkpoints" / "notes").is_dir()
    assert len(list((tmp_path / "checkpoints").glob("*.unreadable-*"))) == 2


def test_the_rest_of_a_step_whose_deletion_was_cut_off_goes(tmp_path, capsys):
    """And only that: of steps 1 to 6 with 2 kept, and every fourth, 3 has lost its manifest by deletion, 4 and 6 by damage.

    2 is no step at all, but somebody's folder.
    """
    with checkpoint.Checkpoints(tmp_path, keep=9) as c:
        for step in range(1, 7):
            c.save(state(step))
        c.wait()
    for step in (2, 3, 4, 6):
        (c.directory / checkpoint.name(step) / "manifest" / "metadata").unlink()
    (c.directory / checkpoint.name(2) / "notes.txt").touch()
    with checkpoint.Checkpoints(tmp_path, keep=2, keep_every=4):
        pass
    said = capsys.readouterr().out
    assert "00000003 was being deleted when the run ended" in said
    assert said.count("\n") == 4
    assert sorted(d.name[:19] for d in c.directory.iterdir()) == [
        "00000001", "00000002.unreadable", "00000004.unreadable", "00000005", "00000006.unreadable"
    ]  # fmt: skip


def test_a_store_that_fails_at_the_commit_is_named_by_the_next_save_and_the_good_step_stays(tmp_path, monkeypatch):
    """A stand-in for a mounted bucket, whose mount says EIO once its own tries are over: the rename that commits a step fails."""
    rename = os.rename

    def fail(source, target):
        if "orbax-checkpoint-tmp" in str(source) and "00000009" in str(source):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with checkpoint.Checkpoints(tmp_path) as c:
        for step in (5, 9):
            c.save(state(step))
        with pytest.raises(RunError, match=r"Saving a checkpoint to .*checkpoints failed: .*Input/output error"):
            c.save(state(10))
        assert checkpoint.steps(c.directory) == [5]
    monkeypatch.undo()
    with checkpoint.Checkpoints(tmp_path) as c:  # the rerun
        assert same(c.restore_newest(state(0)), state(5))
        c.save(state(9))
        c.wait()
        assert checkpoint.steps(c.directory) == [9, 5]


def test_steps_of_which_none_is_readable_are_no_fresh_start(tmp_path):
    (tmp_path / "checkpoints" / "00000010" / "state").mkdir(parents=True)
    with pytest.raises(RunError, match="holds 1 step, and none has a readable manifest"):
        checkpoint.Checkpoints(tmp_path)


def test_another_model_is_refused_with_the_first_differences(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as c:
        c.save(state(1))
        c.wait()
        with pytest.raises(UserError, match=r"1 leaves differ.*params/a/kernel is \[\[4, 3\], 'float32'\], wanted \[\[5, 3\]"):
            c.restore_newest(state(0, size=5))
