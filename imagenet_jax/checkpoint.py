"""Saving and restoring a run's state: the one file that knows how a step's directory is laid out.

    workdir/checkpoints/00001000/state/     the TrainState, written by orbax
                                 manifest/  JSON: format, step, and every leaf's shape and dtype, committed with the state

A directory without a readable manifest is no checkpoint. Saves run in the background; the next save or `wait` raises what
went wrong in the last one.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from imagenet_jax import distributed, tree
from imagenet_jax.errors import RunError, UserError
from imagenet_jax.state import TrainState

FORMAT = 1
DIGITS = 8  # of a step's directory name


class Checkpoints:
    """The checkpoints of one run; keeps the newest `keep`."""

    def __init__(self, workdir: pathlib.Path, keep: int = 3):
        self.directory = workdir.absolute() / "checkpoints"
        distributed.main_first(lambda: _set_aside(self.directory))
        self._begun: int | None = None  # the step last given to orbax, which may still be writing it
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.preservation_policy.LatestN(keep),
                step_name_format=ocp.path.step.standard_name_format(step_format_fixed_length=DIGITS),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )
        self._all_finite = jax.jit(lambda t: jnp.all(jnp.asarray([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(t)])))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc: object) -> None:
        with self._failures():
            self._manager.close()

    def latest(self) -> int | None:
        """The newest step with a readable manifest, or None."""
        return latest_step(self.directory)

    def save(self, state: TrainState) -> None:
        """Start writing the state at its step, unless that step is already there.

        Raises RunError for a state with a non-finite leaf, which is never committed, and for an earlier save that failed.
        """
        step = int(state.step)
        if step in (self._begun, self.latest()):
            return
        if not bool(self._all_finite(state)):
            bad = [path for path, leaf in tree.paths(state) if not bool(jnp.all(jnp.isfinite(leaf)))]
            raise RunError(f"The state of step {step} is not finite in {', '.join(bad[:5])}; it is not saved.")
        manifest = {"format": FORMAT, "step": step, "leaves": _describe(state)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), manifest=ocp.args.JsonSave(manifest))
        with self._failures():
            if not self._manager.save(step, args=items):
                raise RunError(f"orbax did not save step {step} to {self.directory}: a later step lies there.")
        self._begun = step

    def wait(self) -> None:
        """Until the last save is on disk. Raises RunError where it failed."""
        with self._failures():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: tensorstore's, for a full disk among others
            raise RunError(f"Saving a checkpoint to {self.directory} failed: {error}") from error

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state of `step`, with the shapes, dtypes and shardings of `like` (arrays or ShapeDtypeStructs)."""
        return restore(self.directory, step, like)


def restore(directory: pathlib.Path, step: int, like: TrainState) -> TrainState:
    """As `Checkpoints.restore`, for readers that save nothing. Raises UserError where the stored leaves are not those of `like`."""
    folder = directory / f"{step:0{DIGITS}d}"
    stored = _manifest(folder)
    if stored is None:
        raise UserError(f"{folder} is no checkpoint: its manifest is missing or unreadable.")
    wanted = _describe(like)
    differing = sorted(k for k in {*stored["leaves"], *wanted} if stored["leaves"].get(k) != wanted.get(k))
    if differing:
        raise UserError(
            f"{folder} does not fit the model and optimizer: {len(differing)} leaves differ, the first: "
            + "; ".join(f"{k} is {stored['leaves'].get(k)}, wanted {wanted.get(k)}" for k in differing[:3])
        )
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((folder / "state").absolute(), abstract)


def latest_step(directory: pathlib.Path) -> int | None:
    """The newest step below `directory` (workdir/checkpoints) whose manifest is readable, or None where there is no step at all.

    Raises RunError where there are steps and none is readable: to begin anew then would be to lose a run in silence.
    """
    steps = sorted((int(d.name) for d in directory.glob("[0-9]" * DIGITS) if d.is_dir()), reverse=True)
    for step in steps:
        if _manifest(directory / f"{step:0{DIGITS}d}"):
            return step
    if steps:
        raise RunError(
            f"{directory} holds {len(steps)} step{'s' if len(steps) > 1 else ''}, and none has a readable manifest. "
            "Restore one of them, or move the directory away to begin anew."
        )
    return None


def _set_aside(directory: pathlib.Path) -> None:
    """Rename steps without a readable manifest: orbax would count them, and skip every save up to their number in silence.

    Raises RunError as `latest_step` does.
    """
    latest_step(directory)
    for folder in directory.glob("[0-9]" * DIGITS):
        if _manifest(folder) is None:
            aside = folder.with_name(f"{folder.name}.unreadable-{time.time_ns()}")
            folder.rename(aside)
            print(f"{folder} has no readable manifest, so it is no checkpoint: renamed to {aside.name}.")


def _manifest(folder: pathlib.Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / "manifest" / "metadata").read_text())
    except (OSError, ValueError):
        return None
    complete = isinstance(manifest, dict) and manifest.get("format") == FORMAT and manifest.get("step") == int(folder.name)
    return manifest if complete and (folder / "state").is_dir() else None


def _describe(state: Any) -> dict[str, list[Any]]:
    return {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in tree.paths(state)}
