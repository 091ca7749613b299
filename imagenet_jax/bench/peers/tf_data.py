"""tf.data as flax's ImageNet example uses it: it decodes only the crop, with the fast DCT, and resizes bilinearly, not antialiased.

The same calls and settings (decode_and_crop_jpeg, shuffle of 16 batches, AUTOTUNE, prefetch of 10 batches), but uint8 out and no
normalising, as everywhere here; threads are limited to the cores. Its own sampler (sample_distorted_bounding_box) draws the height
of a box evenly, torchvision's and ours the area: its crops hold 0.385 of a 500 x 375 image on average, ours 0.430 (4,000 draws). So
that all rows show the same crops, it gets boxes of ours, drawn before the clock starts; a look-up in place of the sampler.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf  # pyright: ignore[reportMissingImports, reportMissingModuleSource]

from imagenet_jax.bench.task import Square, Task, ViewOf, draw_view
from imagenet_jax.data.pixels import decode

VIEWS = 64  # boxes an image


def version() -> str:
    """Of TensorFlow."""
    return tf.__version__


def batches(task: Task) -> Iterator[np.ndarray]:
    """The training pipeline."""
    tf.config.threading.set_inter_op_parallelism_threads(task.cores)
    tf.config.threading.set_intra_op_parallelism_threads(task.cores)
    options = tf.data.Options()
    options.threading.private_threadpool_size = task.cores
    dataset = tf.data.Dataset.from_tensor_slices((task.images, _boxes(task)))
    dataset = dataset.repeat().shuffle(16 * task.batch_size, seed=0)
    dataset = dataset.map(lambda data, boxes: _training_view(data, boxes, task.size), num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(task.batch_size, drop_remainder=True).prefetch(10).with_options(options).as_numpy_iterator()


def _boxes(task: Task) -> np.ndarray:
    """For each image some training views' boxes (y, x, height, width): int32 (images, VIEWS, 4)."""
    boxes = np.empty((len(task.images), VIEWS, 4), np.int32)
    for i, data in enumerate(task.images):
        _, height, width, _ = decode.read_header(data)
        for k in range(VIEWS):
            view = draw_view(task.size, i, k)(height, width)
            boxes[i, k] = view.y, view.x, view.box_height, view.box_width
    return boxes


def _training_view(data: Any, boxes: Any, size: int) -> Any:
    window = boxes[tf.random.uniform([], maxval=VIEWS, dtype=tf.int32)]
    return tf.image.random_flip_left_right(_cut(data, window, size))


def _cut(data: Any, window: Any, size: int) -> Any:
    image = tf.image.decode_and_crop_jpeg(data, window, channels=3, dct_method="INTEGER_FAST")
    return tf.cast(tf.round(tf.image.resize([image], [size, size], method="bilinear")[0]), tf.uint8)


def square(task: Task) -> Square:
    """The same decoder and resize for a given box."""

    def made(data: bytes, view_of: ViewOf) -> np.ndarray:
        height, width, _ = tf.image.extract_jpeg_shape(data).numpy()
        view = view_of(int(height), int(width))
        return _cut(data, [view.y, view.x, view.box_height, view.box_width], task.size).numpy()

    return made
