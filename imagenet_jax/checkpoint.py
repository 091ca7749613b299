"""Saving and restoring a run's state: the one file that knows how a step's directory is laid out.

    workdir/checkpoints/00001000/state/     the TrainState, written by orbax
                                 manifest/  JSON: format, step, every leaf's shape, dtype and digest; committed with the state

A directory without a readable manifest is no checkpoint, and one whose leaves do not have the digests of the manifest is damaged:
orbax has no checksum of its own for what it stores. Saves run in the background; the next save or `wait` raises what went wrong
in the last one.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from imagenet_jax import digest, distributed, logs, tree
from imagenet_jax.errors import RunError, UserError
from imagenet_jax.state import TrainState

FORMAT = 2
DIGITS = 8  # of a step's directory name
PARTS = {"state", "manifest", "_CHECKPOINT_METADATA", "commit_success.txt"}  # what lies in it


class Checkpoints:
    """The checkpoints of one run; keeps the newest `keep`, the best by top-1, and those of every `keep_every` steps (0: none)."""

    def __init__(self, workdir: pathlib.Path, keep: int = 3, keep_every: int = 0):
        self.directory = workdir.absolute() / "checkpoints"
        policy = _Keep(workdir, keep, keep_every)
        distributed.main_first(lambda: _set_aside(self.directory, policy))
        self._begun: int | None = None  # the step last given to orbax, which may still be writing it
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                step_name_format=ocp.path.step.standard_name_format(step_format_fixed_length=DIGITS),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )
        self._identity = _identity(self.directory)

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
        finite, digests = digest.examine(state)
        names = [path for path, _ in tree.paths(state)]
        if not all(finite):
            bad = [name for name, fine in zip(names, finite, strict=True) if not fine]
            raise RunError(f"The state of step {step} is not finite in {', '.join(bad[:5])}; it is not saved.")
        digests = dict(zip(names, digests, strict=True))
        manifest = _sealed({"format": FORMAT, "step": step, "leaves": _describe(state), "digests": digests})
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
            if _identity(self.directory) != self._identity:  # it need not be absent: tensorstore makes what its drafts lie in
                raise RunError(
                    f"{self.directory} has vanished during the run: it was removed, renamed or unmounted. Bring it back, in place "
                    "of what may lie there now, and the same command goes on from the last step in it."
                ) from error
            raise RunError(f"Saving a checkpoint to {self.directory} failed: {_brief(error)}") from error

    def restore_newest(self, like: TrainState) -> TrainState:
        """The newest state that is as it was saved, with the shapes, dtypes and shardings of `like`.

        Damaged steps above it are renamed, with one line each, so that the run can save them anew. Raises RunError where no step
        is sound, and renames nothing then; UserError as `restore` does.
        """
        damaged: dict[int, RunError] = {}

        def newest() -> int:
            return next((step for step in steps(self.directory) if step not in damaged), -1)

        while (step := distributed.from_main(newest())) >= 0:
            try:
                state = restore(self.directory, step, like)
            except RunError as error:
                damaged[step] = error
                continue
            distributed.main_first(lambda: [_rename(self.directory / name(k), "damaged", str(e)) for k, e in damaged.items()])
            if damaged:
                self._manager.reload()  # orbax remembers what it has seen
            return state
        raise RunError(
            f"{self.directory} holds no sound checkpoint: " + " ".join(str(error) for error in damaged.values()) + " Restore one "
            "from a copy, or move the directory away to begin anew."
        )


class _Keep:
    """Which steps orbax keeps when a new one is committed (its PreservationPolicy)."""

    def __init__(self, workdir: pathlib.Path, newest: int, every: int):
        self._workdir, self._newest, self._every = workdir, newest, every

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [c.step for c in checkpoints]
        kept = self.of(steps)
        return [step in kept for step in steps]

    def of(self, steps: Iterable[int]) -> set[int]:
        """Those of `steps` that stay."""
        ordered = sorted(steps)
        best = best_step(self._workdir, ordered)
        newest = ordered[-self._newest :]
        return {step for step in ordered if step in newest or step == best or (self._every > 0 and step % self._every == 0)}


def best_step(workdir: pathlib.Path, steps: Iterable[int]) -> int | None:
    """The one of `steps` whose evaluation, in metrics.jsonl, had the highest top-1 of any of its weights; of equals, the newest."""
    wanted = set(steps)
    evaluated = [
        (r["top1"], r["step"]) for r in logs.read(workdir / "metrics.jsonl") if r["kind"] == "eval" and r["step"] in wanted
    ]
    return max(evaluated)[1] if evaluated else None


def restore(directory: pathlib.Path, step: int, like: TrainState) -> TrainState:
    """The state of `step`, with the shapes, dtypes and shardings of `like` (arrays or ShapeDtypeStructs).

    Raises UserError where there is none or where its leaves are not those of `like`, and RunError where it is damaged; the same in
    all processes of the run, though it be one alone that meets it.
    """
    folder = directory / name(step)
    state, digests = distributed.together(lambda: _read(folder, like))
    distributed.together(lambda: _compare(folder, state, digests))
    return state


def _read(folder: pathlib.Path, like: TrainState) -> tuple[TrainState, dict[str, int]]:
    """What lies there for this process's devices, and the digests that all of it should have."""
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
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})  # waits for no other, which may have failed
    try:
        with ocp.StandardCheckpointer(multiprocessing_options=alone) as reader:
            return reader.restore((folder / "state").absolute(), abstract), stored["digests"]
    except jax.errors.JaxRuntimeError:  # out of memory, say
        raise
    except Exception as error:  # orbax and tensorstore have no common one for files that are cut short or gone
        raise RunError(f"{folder} is damaged: {_brief(error)}.") from error


def _compare(folder: pathlib.Path, state: TrainState, wanted: dict[str, int]) -> None:
    """Raise RunError where a leaf's digest is not the one wanted. Leaves that are split over processes take all of these."""
    _, found = digest.examine(state)
    changed = [k for (k, _), one in zip(tree.paths(state), found, strict=True) if wanted.get(k) != one]
    if changed:
        raise RunError(f"{folder} is damaged: {len(changed)} leaves are not as they were saved, the first: {changed[0]}.")


def _brief(error: Exception) -> str:
    """What went wrong: the operating system's word where there is one, which tensorstore puts amid pages of where in its source."""
    said = str(error).strip() or type(error).__name__
    system = re.search(r"os_error_code='(\d+)'", said)
    return os.strerror(int(system[1])) if system else said.splitlines()[0].partition(" [source")[0][:300]


def steps(directory: pathlib.Path) -> list[int]:
    """The steps below `directory` (workdir/checkpoints) whose manifest is readable, the newest first."""
    return sorted((int(d.name) for d in _folders(directory) if _manifest(d)), reverse=True)


def latest_step(directory: pathlib.Path) -> int | None:
    """The newest of `steps`, or None where there is no step at all.

    Raises RunError where there are steps and none is readable: to begin anew then would be to lose a run in silence.
    """
    there = _folders(directory)
    for folder in sorted(there, reverse=True):
        if _manifest(folder):
            return int(folder.name)
    if there:
        raise RunError(
            f"{directory} holds {len(there)} step{'s' if len(there) > 1 else ''}, and none has a readable manifest. "
            "Restore one of them, or move the directory away to begin anew."
        )
    return None


def name(step: int) -> str:
    """The name of a step's directory."""
    return f"{step:0{DIGITS}d}"


def _folders(directory: pathlib.Path) -> list[pathlib.Path]:
    return [d for d in directory.glob("[0-9]" * DIGITS) if d.is_dir()]


def _set_aside(directory: pathlib.Path, policy: _Keep) -> None:
    """Rename steps without a readable manifest: orbax would count them, and skip every save up to their number in silence.

    Those that hold parts of a step and would not be kept are what a killed run was deleting, and go. Raises RunError as
    `latest_step` does.
    """
    latest_step(directory)
    kept = policy.of(int(folder.name) for folder in _folders(directory))
    for folder in _folders(directory):
        if _manifest(folder):
            continue
        if int(folder.name) in kept or not {f.name for f in folder.iterdir()} <= PARTS:
            _rename(folder, "unreadable", f"{folder} has no readable manifest, so it is no checkpoint.")
        else:
            shutil.rmtree(folder)
            print(f"{folder} was being deleted when the run ended: what was left of it is deleted.", flush=True)


def _identity(directory: pathlib.Path) -> tuple[int, int] | None:
    """What tells a directory from another one of its name; None where there is none or its disk does not answer."""
    try:
        found = directory.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _rename(folder: pathlib.Path, what: str, why: str) -> None:
    aside = folder.with_name(f"{folder.name}.{what}-{time.time_ns()}")
    folder.rename(aside)
    print(f"{why} Renamed to {aside.name}.", flush=True)


def _manifest(folder: pathlib.Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / "manifest" / "metadata").read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(manifest, dict) and manifest == _sealed({k: v for k, v in manifest.items() if k != "sha256"})
    ours = whole and manifest.get("format") == FORMAT and manifest.get("step") == int(folder.name)
    return manifest if ours and (folder / "state").is_dir() else None


def _sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """With the hash of itself: a bit that flipped in a shape must not look like another model."""
    return {**manifest, "sha256": hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()}


def _describe(state: Any) -> dict[str, list[Any]]:
    return {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in tree.paths(state)}
