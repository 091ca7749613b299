"""A model as something that turns pictures into vectors and predictions, and says what it is, so that indexes can hold it to it."""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from imagenet_jax import finetune, infer, sharding, step
from imagenet_jax.data.batches import photos
from imagenet_jax.errors import RunError, UserError
from imagenet_jax.retrieval.store import Index, Predictions

TOP = 20  # classes kept of each image


class Embedded(NamedTuple):
    """A batch of images: `ids`, what is wrong with each (None where nothing is), and of those at the front of the arrays."""

    ids: list[int]
    faults: list[str | None]
    vectors: np.ndarray  # float32 (n, d), of length 1
    predictions: Predictions


class Query(NamedTuple):
    """One picture: as the model sees it, uint8 (size, size, 3), its vector (d,) and its predictions, (1, top)."""

    square: np.ndarray
    vector: np.ndarray
    predictions: Predictions


class Embedder:
    """`identity` is what index.json says of the model: model, weights, preprocessing, classes, dimension, top."""

    def __init__(self, folder: pathlib.Path, mesh: Mesh):
        self.loaded, self.mesh = infer.load(folder, mesh), mesh
        loaded, pixels, model = self.loaded, self.loaded.pixels, self.loaded.record["config"]["model"]
        self.variables, top = loaded.weights[loaded.best], min(TOP, len(loaded.classes))
        self._step = step.make_embed_step(loaded.model, mean=loaded.mean, std=loaded.std, top=top)
        image = jax.ShapeDtypeStruct((1, pixels.image_size, pixels.image_size, 3), np.uint8)
        self.identity: dict[str, Any] = {
            "model": {"name": model["name"], "settings": model["settings"]},
            "weights": {
                "sha256": finetune.content_hash(jax.device_get(self.variables)),
                "folder": str(folder.absolute()),
                "step": loaded.step,
                "which": loaded.best,
            },
            "preprocessing": {
                **{key: getattr(pixels, key) for key in ("image_size", "crop_ratio", "antialias")},
                "interpolation": pixels.engine.interpolation,
                "mean": list(loaded.mean),
                "std": list(loaded.std),
                "decoder": {"name": pixels.engine.name, "version": pixels.engine.version},
            },
            "classes": list(loaded.classes),
            "dimension": jax.eval_shape(self._step, self.variables, image)["vector"].shape[1],
            "top": top,
        }

    def stream(self, ids: Sequence[int], read: Callable[[int], bytes], batch_size: int) -> Generator[Embedded]:
        """All images in order; `read`, called by threads, gives the bytes of one, and its ValueError and OSError are faults.

        Raises RunError where a vector is not finite.
        """
        with contextlib.closing(photos.batches(ids, self.loaded.pixels, batch_size=batch_size, read=read)) as host:
            pairs = ((batch, batch.images) for batch in host)
            for batch, out in infer.outputs(self._step, self.variables, self.mesh, pairs):
                if not np.isfinite(out["vector"]).all() or not np.isfinite(out["probabilities"]).all():
                    raise RunError("The model's features are not finite: bad weights.")
                yield Embedded(batch.paths, batch.faults, out["vector"], Predictions(out["classes"], out["probabilities"]))

    def one(self, data: bytes) -> Query:
        """One encoded picture. Raises UserError where it does not decode."""
        size = self.loaded.pixels.image_size
        square = np.zeros((size, size, 3), np.uint8)
        try:
            photos.view(data, self.loaded.pixels, square)
        except ValueError as error:
            raise UserError(f"The picture does not decode: {str(error).rstrip('.')}.") from None
        ((_, out),) = infer.outputs(self._step, self.variables, self.mesh, [(None, np.repeat(square[None], self.mesh.size, 0))])
        return Query(square, out["vector"][0], Predictions(out["classes"][:1], out["probabilities"][:1]))


def for_queries(index: Index, folder: pathlib.Path | None = None) -> Embedder:
    """The model that made an index, on one device, from `folder` or from where it was then.

    Raises UserError where what is there now are other weights or another preprocessing; another version of the decoder, whose
    pixels may differ by a level, is said on stderr.
    """
    if folder and not folder.is_dir():
        raise UserError(f"--weights={folder} is no folder.")
    folder = folder or pathlib.Path(index.manifest["weights"]["folder"])
    if not folder.is_dir():
        raise UserError(f"The weights of {index.folder} were in {folder}, which is no folder now. Say where: --weights=DIR")
    embedder = Embedder(folder, sharding.make_mesh(jax.devices()[:1]))
    index.refuse_unlike(embedder.identity, str(folder))
    here, then = (m["preprocessing"].get("decoder") for m in (embedder.identity, index.manifest))
    if here != then:
        print(f"The index was made with the decoder {then}, here is {here}: pixels may differ a little.", file=sys.stderr)
    return embedder
