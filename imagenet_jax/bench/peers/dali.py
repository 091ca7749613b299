"""NVIDIA DALI without a GPU: random-crop decode, antialiased linear resize, mirror, in its own threads."""

import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from imagenet_jax.bench.task import Square, Task, ViewOf

dali: Any = importlib.import_module("nvidia.dali")  # its operators are made at import, which no type checker sees
RESIZE = {"interp_type": dali.types.INTERP_LINEAR, "antialias": True}


def version() -> str:
    """Of DALI."""
    return dali.__version__


def batches(task: Task) -> Iterator[np.ndarray]:
    """A CPU-only pipeline with its usual queue of two batches."""
    images = itertools.cycle([np.frombuffer(image, np.uint8) for image in task.images])
    pipeline = dali.Pipeline(task.batch_size, task.cores, device_id=None, prefetch_queue_depth=2)
    with pipeline:
        encoded = dali.fn.external_source(
            lambda: [next(images) for _ in range(task.batch_size)], dtype=dali.types.UINT8, no_copy=True
        )
        crop = dali.fn.decoders.image_random_crop(
            encoded, device="cpu", random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3], num_attempts=10,
            adjust_orientation=False, use_fast_idct=False,
        )  # fmt: skip
        resized = dali.fn.resize(crop, size=(task.size, task.size), **RESIZE)
        pipeline.set_outputs(dali.fn.flip(resized, horizontal=dali.fn.random.coin_flip()))
    while True:
        yield _array(pipeline)


def square(task: Task) -> Square:
    """The same decoder and resize for a given box, one image a run."""
    given: dict[str, np.ndarray] = {}

    def source(name: str) -> Any:
        return dali.fn.external_source(lambda: [given[name]])

    with _one_by_one() as shape_of:
        shape_of.set_outputs(dali.fn.peek_image_shape(source("image"), adjust_orientation=False))
    with _one_by_one() as pixels_of:
        crop = dali.fn.decoders.image_slice(
            source("image"), source("anchor"), source("shape"),
            axis_names="HW", normalized_anchor=False, normalized_shape=False, adjust_orientation=False,
        )  # fmt: skip
        pixels_of.set_outputs(dali.fn.resize(crop, size=(task.size, task.size), **RESIZE))

    def made(data: bytes, view_of: ViewOf) -> np.ndarray:
        given["image"] = np.frombuffer(data, np.uint8)
        height, width, _ = _array(shape_of)[0]
        view = view_of(int(height), int(width))
        given["anchor"] = np.array([view.y, view.x], np.int32)
        given["shape"] = np.array([view.box_height, view.box_width], np.int32)
        return _array(pixels_of)[0]

    return made


def _one_by_one() -> Any:
    return dali.Pipeline(1, 1, device_id=None, exec_async=False, exec_pipelined=False)


def _array(pipeline: Any) -> np.ndarray:
    return np.asarray(pipeline.run()[0].as_array())
