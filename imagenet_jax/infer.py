"""A trained run as something to apply: its model, its weights, and the preprocessing that belongs to them."""

import dataclasses
import pathlib
from typing import Any

from jax.sharding import Mesh

from imagenet_jax import build, checkpoint, record
from imagenet_jax.data.loader import Pixels
from imagenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """What evaluation and prediction need, read from a run directory."""

    model: Any  # nn.Module
    weights: dict[str, Any]  # "raw", and "ema" where the run keeps one -> variables
    step: int
    classes: tuple[str, ...]
    pixels: Pixels
    mean: tuple[float, ...]
    std: tuple[float, ...]
    record: dict[str, Any]  # config.json


def load_run(workdir: pathlib.Path, mesh: Mesh) -> LoadedModel:
    """The run's newest checkpoint, replicated over the mesh.

    Raises UserError where there is none, or where this installation decodes images with another engine than the run did.
    """
    run = record.read(workdir)
    step = checkpoint.latest_step(workdir / "checkpoints")
    if step is None:
        raise UserError(f"{workdir} has no checkpoint yet.")
    pixels = record.recorded_pixels(run)
    model = build.model(run["config"], len(run["dataset"]["classes"]))
    like = build.abstract_state(model, run["config"], mesh)
    state = checkpoint.restore(workdir / "checkpoints", step, like)
    names = ("raw", "ema") if state.ema else ("raw",)
    shown = run["preprocessing"]
    return LoadedModel(
        model=model,
        weights={name: state.variables(name) for name in names},
        step=step,
        classes=tuple(run["dataset"]["classes"]),
        pixels=pixels,
        mean=tuple(shown["mean"]),
        std=tuple(shown["std"]),
        record=run,
    )
