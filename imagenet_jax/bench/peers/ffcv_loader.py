"""FFCV with its random-resized-crop decoder, on data that it encoded anew: at most 512 px a side, JPEG quality 90.

FFCV reads only its own files, so this row sees other bytes than the rest: smaller images of lower quality. It averages where it
shrinks (OpenCV's INTER_AREA); how close that is to Pillow is not measured. It has no wheel and is not in the `peers` extra: it
wants torch, a C++ compiler, and the headers of OpenCV and libturbojpeg (Debian: libopencv-dev, libturbojpeg0-dev, pkg-config),
then `pip install torch numba ffcv`.
"""

import io
import pathlib
import tempfile
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import ffcv  # pyright: ignore[reportMissingImports]
import numpy as np
from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder  # pyright: ignore[reportMissingImports]
from PIL import Image

from imagenet_jax.bench.task import Square, Task

EPOCH = (
    1 << 22
)  # images: its pipeline runs empty at the end of each epoch, so there is one, which no measurement reaches the end of


def version() -> str:
    """Of FFCV."""
    return metadata.version("ffcv")


def batches(task: Task) -> Iterator[np.ndarray]:
    """Write its file, open it through the operating system's cache, in random order."""
    with tempfile.TemporaryDirectory() as folder:  # mapped into memory from the first batch on
        views = iter(_loader(task, str(pathlib.Path(folder) / "images.beton")))
        yield next(views)[0]
    for (batch,) in views:
        yield batch


def _loader(task: Task, path: str) -> Any:
    field = ffcv.fields.RGBImageField(write_mode="jpg", max_resolution=512, jpeg_quality=90)
    ffcv.DatasetWriter(path, {"image": field}, num_workers=task.cores).from_indexed_dataset(Decoded(task.images))
    pipeline: list[Any] = [
        RandomResizedCropRGBImageDecoder((task.size, task.size), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
        ffcv.transforms.RandomHorizontalFlip(),
    ]
    return ffcv.Loader(
        path, batch_size=task.batch_size, num_workers=task.cores, os_cache=True, order=ffcv.loader.OrderOption.RANDOM,
        indices=np.resize(np.arange(len(task.images)), EPOCH), drop_last=True, pipelines={"image": pipeline},
    )  # fmt: skip


def square(task: Task) -> Square | None:
    """Not measured: it draws its boxes itself."""
    return None


class Decoded:
    """What its writer takes: [i] -> a tuple of fields."""

    def __init__(self, images: list[bytes]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Image.Image]:
        return (Image.open(io.BytesIO(self._images[index])).convert("RGB"),)
