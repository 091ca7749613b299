"""nvImageCodec on the CPU by hand: it decodes only the region of the crop; OpenCV's INTER_LINEAR resizes it.

EXIF rotation is off: with it, a region of a rotated image is judged against the wrong sides. Its start-up noise on stderr goes to
the contestants' log.
"""

import importlib
import threading
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from imagenet_jax.bench.by_hand import threaded
from imagenet_jax.bench.task import Square, Task, ViewOf

nvimgcodec: Any = importlib.import_module("nvidia.nvimgcodec")  # its types are in a compiled module that it re-exports by name


def version() -> str:
    """Of nvImageCodec."""
    return nvimgcodec.__version__


def batches(task: Task) -> Iterator[np.ndarray]:
    """The loop by hand."""
    cv2.setNumThreads(0)
    return threaded(task, square(task))


def square(task: Task) -> Square:
    """Decode the region, resize, mirror; one decoder a thread."""
    local = threading.local()
    params = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)

    def made(data: bytes, view_of: ViewOf) -> np.ndarray:
        if not hasattr(local, "decoder"):
            backends = [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)]
            local.decoder = nvimgcodec.Decoder(
                device_id=nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, max_num_cpu_threads=1, backends=backends
            )
        stream = nvimgcodec.CodeStream(data)
        view = view_of(stream.height, stream.width)
        region = nvimgcodec.Region(view.y, view.x, view.y + view.box_height, view.x + view.box_width)
        image = local.decoder.decode(stream.get_sub_code_stream(0, region), params=params)
        if image is None:
            raise ValueError("nvImageCodec does not decode an image of this data set")
        box = cv2.resize(np.asarray(image.cpu()), (view.size, view.size), interpolation=cv2.INTER_LINEAR)
        return cv2.flip(box, 1) if view.flip else box

    return made
