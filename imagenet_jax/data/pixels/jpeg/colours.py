"""From planes of YCbCr to RGB, 16 pixels at once: chroma brought to full resolution and colours mixed in one pass.

On addresses, as in entropy.py. What is left over of 16 is computed too: rows of the result have room for it, and nobody looks.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false

import numpy as np
from numba import njit

from imagenet_jax.data.pixels.jpeg.machine import add_rows, mix_full, mix_half

STEP = 16  # pixels
SPARE = 3 * STEP  # bytes or more that must be readable behind the last plane, and writable behind the result


@njit(cache=True, nogil=True, error_model="numpy")
def rgb(planes, places, limits, ratio, y, x, height, width, out):
    """RGB of pixels [y, y + height) x [x, x + width) of three planes, into `out`, uint8; returns where the first byte stands.

    `places` as in entropy.decode. `limits`: rows and columns of the chroma planes that belong to the image; `ratio`: how many times
    their resolution is lower, 1 or 2 down and across. Rows of `out` are `row_bytes(width + across - 1)` apart.

    A pixel's chroma is 3/4 of the sample that it lies in and 1/4 of the nearer neighbour, each way ("fancy upsampling" of libjpeg,
    jdsample.c), rounded once; colours are JFIF's (ITU-R BT.601, all 256 levels).
    """
    down, across = ratio
    rows, columns = limits
    first, last = x // across, (x + width - 1) // across + 1  # samples
    before = x - first * across  # pixels of the first sample left of the crop
    low, high = max(first - 1, 0), min(last + 1, columns)
    sums = np.empty((2, last - first + 2 + 2 * STEP), np.int16)  # of two rows, from the sample left of the first on
    source, target = planes.ctypes.data, out.ctypes.data
    blue, red = sums[0].ctypes.data, sums[1].ctypes.data
    apart = row_bytes(width + across - 1)
    for i in range(height):
        near = (y + i) // down
        other = near if down == 1 else min(max(near + 2 * ((y + i) & 1) - 1, 0), rows - 1)
        for c in range(2):
            begin, stride = source + places[c + 1, 0], places[c + 1, 1]
            for k in range(low, high, STEP):
                add_rows(begin + near * stride + k, begin + other * stride + k, sums[c].ctypes.data + 2 * (k - first + 1))
            if first == 0:
                sums[c, 0] = sums[c, 1]
            if last == columns:
                sums[c, last - first + 1] = sums[c, last - first]
        luma = source + places[0, 0] + (y + i) * places[0, 1] + x - before
        for k in range(0, before + width, STEP):
            if across == 2:
                mix_half(luma + k, blue + k, red + k, target + i * apart + 3 * k)
            else:
                mix_full(luma + k, blue + 2 * k, red + 2 * k, target + i * apart + 3 * k)
    return 3 * before


@njit(cache=True, nogil=True)
def row_bytes(pixels):
    """From one row of the result to the next."""
    return -(-pixels // STEP) * STEP * 3
