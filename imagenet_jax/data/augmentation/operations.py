"""What an image editor does to a square of pixels: brighter, sharper, turned. No randomness; transforms.py and policies.py draw.

Images are uint8 (size, size, 3) RGB, C-contiguous; an operation may write into its argument and returns the result. They follow
Pillow, which torchvision and timm call, to within a level (hue and blur, of which Pillow's are coarse, are nearer to the
definition), in a fifth of its time or less. What OpenCV computes in SIMD is used even where a table of 256 entries would be exact:
cv2.LUT takes 86 us at 224, addWeighted 24.
"""

import math

import cv2
import numpy as np

from imagenet_jax.errors import unknown

LUMA = (0.299, 0.587, 0.114)  # of R, G, B (ITU-R 601)
INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}

# Pillow and torch cut the fraction off where OpenCV rounds. A little less than a half keeps whole numbers whole.
_CUT = 1 / 1024 - 0.5


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black: 0 is black, 1 the image, more is brighter."""
    return _blend(image, factor, 0)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the image's mean grey: 0 is grey, 1 the image, more has more contrast."""
    return _blend(image, factor, math.floor(np.dot(cv2.mean(image)[:3], LUMA) + 0.5))


def _blend(image: np.ndarray, factor: float, grey: float) -> np.ndarray:
    return cv2.addWeighted(image, factor, image, 0, (1 - factor) * grey + _CUT, dst=image)


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the greyscale image: 0 is grey, 1 the image, more has more colour."""
    matrix = np.eye(3, 4) * factor
    matrix[:, :3] += (1 - factor) * np.array(LUMA)
    matrix[:, 3] = _CUT
    return cv2.transform(image, matrix)


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turn the hue by `shift` of a full circle, in HSV of 8 bits."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)  # wraps round, as the circle does
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=image)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the image smoothed by (1 1 1; 1 5 1; 1 1 1) / 13, the outermost pixels left: 0 is smooth, 1 the image, 2 sharp."""
    inside = image[1:-1, 1:-1]
    # That kernel is 4 parts the pixel itself and 9 parts the mean of 3 x 3, which OpenCV has a fast way for.
    smooth, weight = cv2.blur(image, (3, 3))[1:-1, 1:-1], (1 - factor) * 9 / 13
    inside[...] = cv2.addWeighted(inside, 1 - weight, smooth, weight, _CUT)
    return image


def greyscale(image: np.ndarray) -> np.ndarray:
    """The luma of ITU-R 601 in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB, dst=image)


def invert(image: np.ndarray) -> np.ndarray:
    """255 - x."""
    return cv2.bitwise_not(image, dst=image)


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """255 - x where x is at least `threshold`."""
    image ^= np.negative((image >= math.ceil(threshold)).view(np.uint8))  # 255 - x is x ^ 255
    return image


def solarize_add(image: np.ndarray, amount: int) -> np.ndarray:
    """x + `amount`, at most 255, where x is below 128."""
    return cv2.add(image, (image < 128).view(np.uint8) * np.uint8(amount), dst=image)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keep the upper `bits` of each 8."""
    return np.bitwise_and(image, np.uint8(255 & -(1 << (8 - bits))), out=image)


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretch each channel linearly to 0 .. 255; a channel of one value stays."""
    rows = image.reshape(len(image), -1)  # two steps: numpy's min over two axes of three takes 90 times as long
    low, high = rows.min(0).reshape(-1, 3).min(0), rows.max(0).reshape(-1, 3).max(0)
    tables = []
    for least, most in zip(low.tolist(), high.tolist(), strict=True):
        scale = 255 / (most - least) if most > least else 1.0
        offset = -least * scale if most > least else 0.0
        tables.append((np.arange(256) * scale + offset).clip(0, 255))
    return _look_up(image, tables)


def equalize(image: np.ndarray) -> np.ndarray:
    """Flatten the histogram of each channel, by Pillow's whole-number rule (ImageOps.equalize)."""
    tables = []
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        used = np.flatnonzero(counts)
        step = int(counts.sum() - counts[used[-1]]) // 255
        below = np.cumsum(counts) - counts
        tables.append(np.minimum((below + step // 2) // step, 255) if step else np.arange(256))
    return _look_up(image, tables)


def _look_up(image: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    return cv2.LUT(image, np.stack(tables, axis=-1).astype(np.uint8)[None], dst=image)


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian of standard deviation `sigma` pixels, cut off at 3 of them; the edge goes on outside."""
    return cv2.GaussianBlur(image, (0, 0), sigma, dst=image, borderType=cv2.BORDER_REPLICATE)


class Warp:
    """Affine maps, with what to put between pixels and outside the image.

    `interpolation` is a name of INTERPOLATIONS, `fill` an RGB colour of 0 .. 255. Raises UserError for an unknown name.
    """

    def __init__(self, interpolation: str, fill: tuple[int, int, int]):
        if interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", interpolation, INTERPOLATIONS)
        self._flags, self._fill = INTERPOLATIONS[interpolation] | cv2.WARP_INVERSE_MAP, fill

    def __call__(self, image: np.ndarray, a: float, b: float, c: float, d: float, e: float, f: float) -> np.ndarray:
        """The image whose point (x, y) shows (a x + b y + c, d x + e y + f) of `image`, from its upper left corner, in pixels."""
        # OpenCV counts from the centre of the first pixel.
        matrix = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
        size = image.shape[1], image.shape[0]
        return cv2.warpAffine(image, matrix, size, flags=self._flags, borderMode=cv2.BORDER_CONSTANT, borderValue=self._fill)

    def rotate(self, image: np.ndarray, degrees: float) -> np.ndarray:
        """Turned about its centre, counter-clockwise."""
        cos, sin, half = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), len(image) / 2
        return self(image, cos, -sin, half * (1 - cos + sin), sin, cos, half * (1 - sin - cos))
