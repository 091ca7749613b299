"""What storing images in another encoding buys and costs, measured on a sample: size, decoding speed, pixels."""

import dataclasses
import io
import time
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from imagenet_jax.data.augmentation.augment import View, random_resized_crop
from imagenet_jax.data.order import Draws
from imagenet_jax.data.pixels.jpeg import cut
from imagenet_jax.data.pixels.jpeg import header as headers
from imagenet_jax.data.preparing.judge import grey_or_rgb
from imagenet_jax.data.preparing.shards import DataSet, inspect
from imagenet_jax.data.storage.encoding import PLAIN, shrunk
from imagenet_jax.data.storage.entries import Entries

SAMPLE = 200  # images
ROUNDS = 3


class Trade(NamedTuple):
    """A sample's result. Timings are for the screen alone: they go into no file."""

    images: int
    size: float  # bytes stored by bytes that came
    speed: float  # images a second decoded in full (OpenCV, one thread): of what is stored by of what came
    crops: float  # the same of training crops, which are cut out of what has restart markers before they are decoded
    psnr: float | None  # dB, median: stored pixels against the original's resized alike; None where nothing is re-encoded


def measure(entries: Entries, dataset: DataSet) -> Trade | None:
    """Encode up to 200 images, evenly spread over `entries`; None where none of them can be stored."""
    plain = dataclasses.replace(dataset, encoding=PLAIN)
    chosen = [entries[int(index)] for index in np.unique(np.linspace(0, len(entries) - 1, SAMPLE).astype(int))]
    verdicts = [(inspect(entry, plain).data, inspect(entry, dataset).data) for entry in chosen]
    pairs = [(before, after) for before, after in verdicts if before and after]
    if not pairs:
        return None
    sizes = np.array([[len(before), len(after)] for before, after in pairs]).sum(0)
    came = sum(_seconds(_decode, before) for before, _ in pairs)
    stored = sum(_seconds(_decode, after) for _, after in pairs)
    crops = sum(_seconds(_decode_crop, after, seed) for seed, (_, after) in enumerate(pairs))
    psnr = [_psnr(before, after, dataset) for before, after in pairs] if dataset.encoding.reencodes else None
    return Trade(len(pairs), sizes[1] / sizes[0], came / stored, came / crops, float(np.median(psnr)) if psnr else None)


def _seconds(function: Callable[..., object], *arguments: object) -> float:
    """The best of some calls."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


def _decode(data: bytes) -> None:
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _decode_crop(data: bytes, seed: int) -> None:
    try:
        header = headers.read(data)
    except ValueError:  # no JPEG, or one with rubbish between its headers, which has no markers of ours
        return _decode(data)
    if cut.possible(header):
        view = random_resized_crop(View(header.height, header.width, 224, 0, 0, header.height, header.width), Draws(seed))
        data = cut.cut(data, header, view.y, view.x, view.box_height, view.box_width)[0]
    return _decode(data)


def _psnr(before: bytes, after: bytes, dataset: DataSet) -> float:
    with Image.open(io.BytesIO(before)) as image:
        wanted = np.asarray(shrunk(grey_or_rgb(image), dataset.encoding).convert("RGB"), float)
    with Image.open(io.BytesIO(after)) as image:
        error = np.square(np.asarray(image.convert("RGB"), float) - wanted).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-3)))
