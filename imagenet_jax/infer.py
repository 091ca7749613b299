"""A trained run, or a folder of weights, as something to apply: model, variables, and the preprocessing that belongs to them."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from imagenet_jax import build, checkpoint, distributed, loop, record, sharding
from imagenet_jax.data.batches.views import Pixels
from imagenet_jax.data.pixels import decode
from imagenet_jax.errors import UserError
from imagenet_jax.pretrained import weights

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """What evaluation and prediction need, read from a run directory or a folder of weights."""

    model: Any  # nn.Module
    weights: dict[str, Any]  # "raw", and "ema" where the run keeps one -> variables
    step: int
    classes: tuple[str, ...]
    pixels: Pixels
    mean: tuple[float, ...]
    std: tuple[float, ...]
    record: dict[str, Any]  # config.json; of weights: their model, preprocessing and source, under the same keys

    @property
    def best(self) -> str:
        """The weights to use where one must choose: the average, where one is kept."""
        return "ema" if "ema" in self.weights else "raw"


def load(folder: pathlib.Path, mesh: Mesh) -> LoadedModel:
    """A run's newest checkpoint or a folder of weights, whichever it is. Raises UserError as they do, and where it is neither."""
    if (folder / "weights.json").is_file():
        return load_weights(folder, mesh)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is neither a folder of weights, which has a weights.json, nor a run, which has a config.json. Make one: "
            f"python -m imagenet_jax.convert --out={folder} ..., or python -m imagenet_jax.main --workdir={folder} ..."
        )
    return load_run(folder, mesh)


def load_weights(folder: pathlib.Path, mesh: Mesh) -> LoadedModel:
    """A folder that `convert` wrote, replicated over the mesh; all preprocessing is what its weights.json says."""
    found = weights.load(folder)
    p = found.preprocessing
    engine = decode.engine("opencv", p.interpolation)
    record = {
        "config": {"model": {"name": found.name, "settings": found.settings}},
        "preprocessing": p._asdict() | {"decoder": {"name": engine.name, "version": engine.version}},
        "source": found.source,
    }
    return LoadedModel(
        model=found.model,
        weights={"raw": sharding.replicate(mesh, found.variables)},
        step=0,
        classes=found.classes,
        pixels=Pixels(engine, p.image_size, p.crop_ratio, p.antialias),
        mean=p.mean,
        std=p.std,
        record=record,
    )


def load_run(workdir: pathlib.Path, mesh: Mesh) -> LoadedModel:
    """The run's newest checkpoint, replicated over the mesh.

    Raises UserError where there is none, or where this installation decodes images with another engine than the run did.
    """
    run = record.read(workdir)
    newest = checkpoint.latest_step(workdir / "checkpoints")
    step = distributed.from_main(-1 if newest is None else newest)  # the run may be saving the next one
    if step < 0:
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


def outputs(
    function: Callable[[Any, jax.Array], Any], variables: Any, mesh: Mesh, batches: Iterable[tuple[T, np.ndarray]]
) -> Generator[tuple[T, Any]]:
    """(what, function(variables, images)) for each (what, uint8 images) in order, while the next are decoded and computed.

    The function gives an array or a tree of them; they come back as NumPy's. The images, as many in each batch and a multiple of
    the devices, are this process's rows; what comes back is of all of them.
    """
    place, split = sharding.replicated(mesh), sharding.batched(mesh)
    compiled = jax.jit(function, in_shardings=(place, split), out_shardings=place)
    under_way: collections.deque[tuple[T, Any]] = collections.deque()

    def finished() -> tuple[T, Any]:
        what, output = under_way.popleft()
        return what, jax.device_get(output)

    for what, images in batches:
        under_way.append((what, compiled(variables, sharding.put_batch(mesh, {"image": images})["image"])))
        if len(under_way) > loop.IN_FLIGHT:
            yield finished()
    while under_way:
        yield finished()
