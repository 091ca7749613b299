"""The policies against torchvision's and timm's published definitions, written out here with Pillow's operations."""

import collections
import math

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from imagenet_jax.data.augmentation import policies
from imagenet_jax.data.order import Draws
from imagenet_jax.errors import UserError

SIDE = 80


@pytest.fixture(scope="module")
def image():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


class Script:
    """Draws that come from a list."""

    def __init__(self, *values):
        self.values = list(values)

    def integer(self, low, high):
        value = self.values.pop(0)
        assert low <= value <= high
        return value

    def uniform(self):
        return self.values.pop(0)

    def normal(self):
        return self.values.pop(0)


NAMES = (  # torchvision's operations, of which it calls saturation "Color"
    *(
        "identity",
        "shear_x",
        "shear_y",
        "translate_x",
        "translate_y",
        "rotate",
        "brightness",
        "saturation",
        "contrast",
        "sharpness",
    ),
    *("posterize", "solarize", "autocontrast", "equalize"),
)
SIGNED = NAMES[1:10]
GEOMETRIC = (*NAMES[1:6], "slide_x", "slide_y")


def torchvision_magnitude(name, i, bins, *, wide=False):
    """`_augmentation_space`, entry i."""
    enhance = 0.99 if wide else 0.9
    if name in ("shear_x", "shear_y"):
        return np.linspace(0, 0.99 if wide else 0.3, bins)[i]
    if name in ("translate_x", "translate_y"):
        return np.linspace(0, 32.0 if wide else 150.0 / 331.0 * SIDE, bins)[i]
    if name == "rotate":
        return np.linspace(0, 135.0 if wide else 30.0, bins)[i]
    if name in ("brightness", "saturation", "contrast", "sharpness"):
        return np.linspace(0, enhance, bins)[i]
    if name == "posterize":
        return 8 - (np.arange(bins) / ((bins - 1) / (6 if wide else 4))).round()[i]
    if name == "solarize":
        return np.linspace(255.0, 0.0, bins)[i]
    return 0.0


def with_pillow(picture, name, magnitude, fill=(0, 0, 0)):
    """`_apply_op` on a Pillow image, bilinear."""

    def affine(*numbers):
        return picture.transform(picture.size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR, fillcolor=fill)

    return {
        "identity": lambda: picture,
        "shear_x": lambda: affine(1, magnitude, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, magnitude, 1, 0),
        "translate_x": lambda: affine(1, 0, -int(magnitude), 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, -int(magnitude)),
        "rotate": lambda: picture.rotate(magnitude, Image.Resampling.BILINEAR, fillcolor=fill),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(1 + magnitude),
        "saturation": lambda: ImageEnhance.Color(picture).enhance(1 + magnitude),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(1 + magnitude),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(1 + magnitude),
        "posterize": lambda: ImageOps.posterize(picture, int(magnitude)),
        "solarize": lambda: ImageOps.solarize(picture, magnitude),
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "invert": lambda: ImageOps.invert(picture),
    }[name]()


def assert_alike(ours, theirs, name):
    """Within a level; where geometry interpolates, but for the border of what it leaves empty."""
    off = np.abs(ours.astype(int) - np.asarray(theirs))
    if name in GEOMETRIC:
        assert np.mean(off > 2) < 0.06, name
    else:
        assert off.max() <= 1, name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("magnitude", [0, 9, 15, 30])
@pytest.mark.parametrize("sign", [0, 1])
def test_rand_augments_operations_are_torchvisions(image, name, magnitude, sign):
    value = torchvision_magnitude(name, magnitude, 31)
    draws = Script(NAMES.index(name), *([sign] if name in SIGNED else []))
    ours = policies.rand_augment(image.copy(), draws, num_ops=1, magnitude=magnitude)
    assert not draws.values
    theirs = with_pillow(Image.fromarray(image), name, -value if sign and name in SIGNED else value)
    assert_alike(ours, theirs, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [0, 1, 8, 17, 30])
def test_trivial_augments_operations_are_torchvisions(image, name, strength):
    value = torchvision_magnitude(name, strength, 31, wide=True)
    draws = Script(NAMES.index(name), strength, *([0] if name in SIGNED else []))
    ours = policies.trivial_augment(image.copy(), draws)
    assert_alike(ours, with_pillow(Image.fromarray(image), name, value), name)


# AutoAugmentPolicy.IMAGENET, one sub-policy a line: operation, probability, magnitude.
TORCHVISION_IMAGENET = """
posterize 0.4 8 rotate 0.6 9
solarize 0.6 5 autocontrast 0.6 -
equalize 0.8 - equalize 0.6 -
posterize 0.6 7 posterize 0.6 6
equalize 0.4 - solarize 0.2 4
equalize 0.4 - rotate 0.8 8
solarize 0.6 3 equalize 0.6 -
posterize 0.8 5 equalize 1.0 -
rotate 0.2 3 solarize 0.6 8
equalize 0.6 - posterize 0.4 6
rotate 0.8 8 saturation 0.4 0
rotate 0.4 9 equalize 0.6 -
equalize 0.0 - equalize 0.8 -
invert 0.6 - equalize 1.0 -
saturation 0.6 4 contrast 1.0 8
rotate 0.8 8 saturation 1.0 2
saturation 0.8 8 solarize 0.8 7
sharpness 0.4 7 invert 0.6 -
shear_x 0.6 5 equalize 1.0 -
saturation 0.4 0 equalize 0.6 -
equalize 0.4 - solarize 0.2 4
solarize 0.6 5 autocontrast 0.6 -
invert 0.6 - equalize 1.0 -
saturation 0.6 4 contrast 1.0 8
equalize 0.8 - equalize 0.6 -
"""


@pytest.mark.parametrize("number", range(25))
@pytest.mark.parametrize("apart", [1e-6, -1e-6])
def test_auto_augment_is_torchvisions_imagenet_policy(image, monkeypatch, number, apart):
    """Each operation runs just below its probability and not just above, at torchvision's magnitude of ten."""
    applied = []
    monkeypatch.setattr(policies, "OPERATIONS", {n: record(applied, n) for n in policies.OPERATIONS})
    words = TORCHVISION_IMAGENET.strip().splitlines()[number].split()
    script, expected = [number], []
    for name, probability, level in (words[:3], words[3:]):
        script.append(float(probability) - apart)
        if float(probability) > script[-1]:
            signed = name in SIGNED
            script += [1] * signed
            value = 0 if level == "-" else torchvision_magnitude(name, int(level), 10)
            expected.append((name, -value if signed else value))
    draws = Script(*script)
    policies.auto_augment(image.copy(), draws)
    assert not draws.values
    assert len(applied) == len(expected)
    for (ours, amount), (name, value) in zip(applied, expected, strict=True):
        assert ours == name
        if name == "posterize":
            assert 8 - round(amount) == value
        elif name == "solarize":
            assert 255 - amount == pytest.approx(value)
        else:
            assert amount == pytest.approx(value)


def record(applied, name):
    def operation(image, amount, warp):
        applied.append((name, amount))
        return image

    return operation


@pytest.fixture
def applied(monkeypatch):
    """(operation, amount) of everything that is applied, in place of doing it."""
    seen = []
    monkeypatch.setattr(policies, "OPERATIONS", {n: record(seen, n) for n in policies.OPERATIONS})
    return seen


def close(count, n, probability):
    return abs(count - n * probability) < 5 * math.sqrt(n * probability * (1 - probability))


def test_rand_augment_draws_uniformly_with_replacement_and_either_sign(image, applied):
    n = 6000
    for i in range(n):
        policies.rand_augment(image, Draws(i), num_ops=3, magnitude=15)
    counts = collections.Counter(name for name, _ in applied)
    assert len(applied) == 3 * n
    assert {*counts} == {*policies.standard(SIDE)}
    assert all(close(count, 3 * n, 1 / 14) for count in counts.values())
    for name, most in policies.standard(SIDE).items():
        amounts = [amount for other, amount in applied if other == name]
        assert {abs(a) for a in amounts} == {most / 2}
        assert close(sum(a < 0 for a in amounts), len(amounts), 0.5) if name in SIGNED else min(amounts) >= 0
    triples = [[name for name, _ in applied[i : i + 3]] for i in range(0, 3 * n, 3)]
    assert close(sum(len({*t}) < 3 for t in triples), n, 1 - 13 * 12 / 14**2)


def test_trivial_augment_draws_one_operation_and_every_strength(image, applied):
    n = 9000
    for i in range(n):
        policies.trivial_augment(image, Draws(i))
    assert len(applied) == n
    counts = collections.Counter(name for name, _ in applied)
    assert all(close(count, n, 1 / 14) for count in counts.values())
    strengths = collections.Counter(round(30 * abs(a) / 135) for name, a in applied if name == "rotate")
    assert sorted(strengths) == list(range(31))
    assert all(close(count, counts["rotate"], 1 / 31) for count in strengths.values())


def test_auto_augment_draws_every_pair_equally_often(image, monkeypatch):
    pairs = [((f"{i}", 1.0, 0),) for i in range(25)]
    seen = []
    monkeypatch.setattr(policies, "AUTO_AUGMENT", tuple(pairs))
    monkeypatch.setattr(policies, "OPERATIONS", {f"{i}": record(seen, f"{i}") for i in range(25)})
    monkeypatch.setattr(policies, "standard", lambda side: {f"{i}": 0 for i in range(25)})
    for i in range(5000):
        policies.auto_augment(image, Draws(i))
    counts = collections.Counter(name for name, _ in seen)
    assert len(counts) == 25
    assert all(close(count, 5000, 1 / 25) for count in counts.values())


TIMM = (  # _RAND_INCREASING_TRANSFORMS: its level -> argument, at level 10 x t
    ("autocontrast", lambda t: 0),
    ("equalize", lambda t: 0),
    ("invert", lambda t: 0),
    ("rotate", lambda t: 30 * t),
    ("posterize_low", lambda t: 4 - int(4 * t)),
    ("solarize_low", lambda t: 256 - int(256 * t)),
    ("solarize_add", lambda t: int(110 * t)),
    ("saturation", lambda t: max(0.1, 1 + 0.9 * t) - 1),
    ("contrast", lambda t: max(0.1, 1 + 0.9 * t) - 1),
    ("brightness", lambda t: max(0.1, 1 + 0.9 * t) - 1),
    ("sharpness", lambda t: max(0.1, 1 + 0.9 * t) - 1),
    ("shear_x", lambda t: 0.3 * t),
    ("shear_y", lambda t: 0.3 * t),
    ("slide_x", lambda t: 0.45 * t * SIDE),
    ("slide_y", lambda t: 0.45 * t * SIDE),
)
OF_TIMM = {  # (argument, picture) -> picture
    "posterize_low": lambda v, p: ImageOps.posterize(p, v) if v else Image.new("RGB", p.size),
    "solarize_low": lambda v, p: ImageOps.solarize(p, v),
    "solarize_add": lambda v, p: p.point([min(255, i + v) if i < 128 else i for i in range(256)] * 3),
    "slide_x": lambda v, p: p.transform(p.size, Image.Transform.AFFINE, (1, 0, -v, 0, 1, 0), Image.Resampling.BILINEAR),
    "slide_y": lambda v, p: p.transform(p.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, -v), Image.Resampling.BILINEAR),
}


@pytest.mark.parametrize(("name", "argument"), TIMM, ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.parametrize("level", [0.0, 3.3, 9.0, 10.0])
def test_rand_augment_timm_has_timms_operations(image, name, argument, level):
    space = list(policies.increasing(SIDE))
    assert sorted(space) == sorted(n for n, _ in TIMM)
    draws = Script(space.index(name), 0.2, 0.0, *([0] if name in policies.SIGNED else []))
    ours = policies.rand_augment_timm(image.copy(), draws, num_ops=1, magnitude=level, fill=(0, 0, 0))
    value, picture = argument(level / 10), Image.fromarray(image)
    expected = OF_TIMM[name](value, picture) if name in OF_TIMM else with_pillow(picture, name, value)
    assert_alike(ours, expected, name)


def test_rand_augment_timm_draws_magnitudes_around_its_own_and_half_of_the_operations(image, applied):
    n = 8000
    for i in range(n):
        policies.rand_augment_timm(image, Draws(i), magnitude=9.0, magnitude_std=0.5, num_ops=2)
    assert close(len(applied), 2 * n, 0.5)
    counts = collections.Counter(name for name, _ in applied)
    assert all(close(count, len(applied), 1 / 15) for count in counts.values())
    levels = np.array([abs(amount) / policies.increasing(SIDE)[name] * 10 for name, amount in applied if amount])
    assert levels.max() == 10
    assert close(np.sum(levels == 10), len(levels), 0.02275)  # two deviations above
    assert abs(np.median(levels) - 9) < 0.03
    assert abs(np.mean(np.abs(levels - 9) < 0.5) - 0.6827) < 0.03


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rand_augment", {"magnitude": 31}, r"magnitude=31 must lie in 0 \.\. 30"),
        ("rand_augment", {"magnitude": 9, "bins": 5}, r"magnitude=9 must lie in 0 \.\. 4"),
        ("rand_augment", {"interpolation": "cubic"}, "No interpolation 'cubic'. Did you mean 'bicubic'"),
        ("rand_augment_timm", {"magnitude": 10.5}, r"magnitude=10.5 must lie in 0 \.\. 10"),
        ("trivial_augment", {"bins": 1}, "bins=1 must lie in 2"),
        ("auto_augment", {"interpolation": ""}, "No interpolation ''"),
    ],
)
def test_settings_out_of_range_are_refused(image, name, settings, message):
    with pytest.raises(UserError, match=message):
        getattr(policies, name)(image.copy(), Draws(0), **settings)


def test_corners_left_empty_get_the_fill(image):
    draws = Script(NAMES.index("translate_x"), 0)
    out = policies.rand_augment(image.copy(), draws, num_ops=1, magnitude=30, fill=(9, 8, 7))
    assert (out[:, :36] == (9, 8, 7)).all()
    assert (out[:, 36:] == image[:, :-36]).all()


def test_policies_never_change_silently(image, applied):
    for name in ("rand_augment", "trivial_augment", "auto_augment", "rand_augment_timm"):
        getattr(policies, name)(image, Draws(0, 1, 2, 3))
    assert [(name, round(amount, 4)) for name, amount in applied] == [
        ("sharpness", 0.27),
        ("identity", 0.0),
        ("sharpness", 0.132),
        ("saturation", 0.8),
        ("solarize", 198.3333),
        ("slide_y", -32.8033),
        ("solarize_low", 232.0512),
    ]
