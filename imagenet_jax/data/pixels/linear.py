"""Linear resizing by numba, mirrored on the way if wanted: half the time of OpenCV's for colours. Part of engine `numba`.

Each row is resized across once, into four 16-bit numbers a pixel, and two of these are mixed into a row of the result. Weights have
8 bits, OpenCV's 11: up to a level apart.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false

import numpy as np
from numba import njit

from imagenet_jax.data.pixels.jpeg.machine import across_four, down_eight

_I = np.int64


def possible(image: np.ndarray, out: np.ndarray) -> bool:
    """Whether `resize` takes them: it works on eight pixels at once, and on two neighbours in a row."""
    return image.shape[1] >= 2 and out.shape[1] >= 8 and image.strides[1:] == (3, 1) and out.strides[1:] == (3, 1)


@njit(cache=True, nogil=True, error_model="numpy")
def resize(image, out, mirrored):
    """Write `image`, uint8 (height, width, 3), resized linearly, into all of `out`, uint8 (h, w, 3); see `possible`.

    Centres of corner pixels lie half a pixel inside, as with OpenCV and tf.image; no antialiasing.
    """
    height, width = image.shape[:2]
    rows, columns = out.shape[:2]
    offsets, weights = np.empty(columns, np.int32), np.empty((columns, 4), np.int16)
    for x in range(columns):
        at, weight = _between((x + 0.5) * width / columns - 0.5, width)
        place = columns - 1 - x if mirrored else x
        offsets[place] = 3 * at
        weights[place] = weight
    kept, held = np.empty((2, 4 * columns), np.int16), np.full(2, -1)  # two rows resized across, and which they are
    source, target = image.ctypes.data, out.ctypes.data
    for y in range(rows):
        at, weight = _between((y + 0.5) * height / rows - 0.5, height)
        for row in (at, min(at + 1, height - 1)):
            if held[row & 1] != row:
                held[row & 1] = row
                line = source + row * image.strides[0]
                for x in range(0, columns, 4):
                    x = min(x, columns - 4)
                    across_four(
                        line,
                        offsets.ctypes.data + 4 * x,
                        weights.ctypes.data + 8 * x,
                        kept.ctypes.data + 8 * (columns * (row & 1) + x),
                    )
        upper = kept.ctypes.data + 8 * columns * (at & 1)
        lower = kept.ctypes.data + 8 * columns * (min(at + 1, height - 1) & 1)
        for x in range(0, columns, 8):
            x = min(x, columns - 8)
            down_eight(upper + 8 * x, lower + 8 * x, min(128 * weight, 32767), target + y * out.strides[0] + 3 * x)


@njit(nogil=True, error_model="numpy")
def _between(position, size):
    """Index of the sample at or before a position, not the last if there are two, and the next one's weight in 1/256."""
    position = min(max(position, 0.0), size - 1.0)
    at = max(min(_I(position), size - 2), 0)
    return at, _I((position - at) * 256 + 0.5)
