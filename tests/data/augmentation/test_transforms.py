import collections
import math
import statistics

import numpy as np
import pytest

from imagenet_jax.data.augmentation import operations as ops
from imagenet_jax.data.augmentation import transforms
from imagenet_jax.data.augmentation.augment import chain
from imagenet_jax.data.order import Draws
from imagenet_jax.errors import UserError


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(1, 255, (40, 40, 3), np.uint8)


def close(count, n, probability):
    return abs(count - n * probability) < 5 * math.sqrt(n * probability * (1 - probability))


def same_distribution(a, b):
    """Two samples of one distribution differ at most by this in their distribution functions, but for 1 in 10,000 (Smirnov)."""
    places = np.unique(np.concatenate([a, b]))
    cdf = [np.searchsorted(np.sort(x), places, side="right") / len(x) for x in (a, b)]
    return np.abs(cdf[0] - cdf[1]).max() < 2.23 * math.sqrt(1 / len(a) + 1 / len(b))


@pytest.mark.parametrize("name", transforms.TRANSFORMS)
def test_every_transform_is_a_function_of_the_image_and_its_draws(image, name):
    apply = chain([(name, {})]).pixels
    outputs = set()
    for i in range(60):
        first, second = apply(image.copy(), Draws(0, 1, i, 0)), apply(image.copy(), Draws(0, 1, i, 0))
        assert (first.shape, first.dtype) == (image.shape, np.uint8)
        np.testing.assert_array_equal(first, second)
        outputs.add(first.tobytes())
    assert len(outputs) >= 2
    assert any(out != image.tobytes() for out in outputs)


@pytest.mark.parametrize("name", ["greyscale", "solarize", "gaussian_blur", "random_erasing", "colour_jitter"])
@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_transforms_happen_as_often_as_they_should(image, name, probability):
    n = 1000 if probability == 0.2 else 50
    apply = chain([(name, {"probability": probability})]).pixels
    changed = sum(not np.array_equal(apply(image.copy(), Draws(i)), image) for i in range(n))
    unseen = 0.2 if name == "gaussian_blur" else 0  # a kernel of one pixel at the smallest sigmas
    assert n * (probability * (1 - unseen)) - 5 * math.sqrt(n / 4) <= changed <= n * probability + 5 * math.sqrt(n / 4)
    assert changed == 0 or probability > 0
    assert changed == n or probability < 1 or name == "gaussian_blur"


@pytest.fixture
def calls(monkeypatch):
    """(operation, amount) of everything that is called, in place of doing it."""
    seen = []

    def recorded(name):
        def operation(image, amount=None):
            seen.append((name, amount))
            return image

        return operation

    for name in ("brightness", "contrast", "saturation", "hue", "greyscale", "solarize", "gaussian_blur"):
        monkeypatch.setattr(ops, name, recorded(name))
    return seen


def test_colour_jitter_is_torchvisions(image, calls):
    n = 6000
    for i in range(n):
        transforms.colour_jitter(image, Draws(i), brightness=0.4, contrast=0.2, saturation=1.5, hue=0.1)
    rows = [calls[i : i + 4] for i in range(0, 4 * n, 4)]
    orders = collections.Counter(tuple(name for name, _ in row) for row in rows)
    assert len(orders) == 24
    assert all(close(count, n, 1 / 24) for count in orders.values())
    uniform = np.random.default_rng(0).uniform
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.8, 1.2), ("saturation", 0, 2.5), ("hue", -0.1, 0.1)):
        amounts = np.array([amount for other, amount in calls if other == name])
        assert len(amounts) == n
        assert low <= amounts.min() < low + 0.01 < high - 0.01 < amounts.max() <= high
        assert same_distribution(amounts, uniform(low, high, n))


def test_colour_jitter_leaves_out_what_is_zero(image, calls):
    transforms.colour_jitter(image, Draws(0), brightness=0.0, contrast=0.0, saturation=0.2, hue=0.0)
    assert [name for name, _ in calls] == ["saturation"]
    for i in range(20):
        transforms.colour_jitter(image, Draws(i))
    assert "hue" not in {name for name, _ in calls}


def test_three_augment_is_one_of_three_and_then_jitter(image, calls):
    n = 3000
    for i in range(n):
        transforms.three_augment(image, Draws(i))
    rows = [calls[i : i + 4] for i in range(0, 4 * n, 4)]
    counts = collections.Counter(row[0][0] for row in rows)
    assert sorted(counts) == ["gaussian_blur", "greyscale", "solarize"]
    assert all(close(count, n, 1 / 3) for count in counts.values())
    assert {amount for name, amount in calls if name == "solarize"} == {128}
    sigmas = np.array([amount for name, amount in calls if name == "gaussian_blur"])
    assert same_distribution(sigmas, np.random.default_rng(0).uniform(0.1, 2.0, 3000))
    assert all(sorted(name for name, _ in row[1:]) == ["brightness", "contrast", "saturation"] for row in rows)
    factors = np.array([amount for row in rows for _, amount in row[1:]])
    assert same_distribution(factors, np.random.default_rng(1).uniform(0.7, 1.3, 3000))


def torchvision_erasing(rng, side, area=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3)):
    """RandomErasing.get_params as torchvision publishes it, with numpy's random numbers; (y, x, height, width) or None."""
    for _ in range(10):
        erased = side * side * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(erased * aspect)), round(math.sqrt(erased / aspect))
        if h < side and w < side:
            return int(rng.integers(0, side - h + 1)), int(rng.integers(0, side - w + 1)), h, w
    return None


def box_of(changed):
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    y, x, h, w = rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert changed[y : y + h, x : x + w].all()
    return y, x, h, w


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_random_erasing_has_torchvisions_distribution(fill):
    n, rng, blank = 4000, np.random.default_rng(0), np.zeros((40, 40, 3), np.uint8)
    settings = {"probability": 1.0, "fill": fill, "mean": (0.5, 0.5, 0.5), "std": (0.01, 0.01, 0.01)}  # never black
    ours = np.array([box_of(transforms.random_erasing(blank.copy(), Draws(i), **settings).any(-1)) for i in range(n)], float)
    theirs = np.array([torchvision_erasing(rng, 40) for _ in range(n)], float)
    for of in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: np.log(b[:, 2] / b[:, 3]),
        lambda b: b[:, 0],
        lambda b: b[:, 1],
        lambda b: b[:, 0] + b[:, 2] / 2,
    ):
        assert same_distribution(of(ours), of(theirs))


def test_translate_cuts_out_of_the_reflected_image_anywhere(image):
    """numpy's reflection, which repeats no edge, as torch's; each of the 25 places equally often."""
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    places = {padded[y : y + 40, x : x + 40].tobytes(): (y, x) for y in range(5) for x in range(5)}
    n = 2500
    found = collections.Counter(places[transforms.translate(image, Draws(i), padding=2).tobytes()] for i in range(n))
    assert len(found) == 25
    assert all(close(count, n, 1 / 25) for count in found.values())


def test_random_erasing_reaches_every_edge():
    blank = np.zeros((20, 20, 3), np.uint8)
    boxes = [box_of(transforms.random_erasing(blank.copy(), Draws(i), probability=1.0).any(-1)) for i in range(500)]
    for start, length in ((0, 2), (1, 3)):
        assert min(box[start] for box in boxes) == 0
        assert max(box[start] + box[length] for box in boxes) == 20


def test_random_erasing_fills_with_the_mean_colour():
    out = transforms.random_erasing(np.zeros((40, 40, 3), np.uint8), Draws(0), probability=1.0)
    assert {tuple(p) for p in out.reshape(-1, 3).tolist()} == {(0, 0, 0), (124, 116, 104)}


def test_random_erasing_fills_with_noise_that_is_standard_normal_once_normalised():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    black, pixels = np.zeros((200, 200, 3), np.uint8), []
    for i in range(40):
        out = transforms.random_erasing(black.copy(), Draws(i), probability=1.0, fill="noise", mean=mean, std=std)
        y, x, h, w = box_of(cover(out))
        pixels.append(out[y : y + h, x : x + w].reshape(-1, 3))
    levels = np.concatenate(pixels)
    assert len(levels) > 100_000
    for c in range(3):
        expected = statistics.NormalDist(255 * mean[c], 255 * std[c])
        for level in range(0, 255, 5):  # at most half a step of 1 / 256 apart, and chance
            assert abs(np.mean(levels[:, c] <= level) - expected.cdf(level + 0.5)) < 1 / 512 + 0.008
    a, b = levels[:, 0] - levels[:, 0].mean(), levels[:, 1] - levels[:, 1].mean()
    assert abs(np.mean(a * b) / (a.std() * b.std())) < 0.02
    assert abs(np.corrcoef(levels[1:, 0], levels[:-1, 0])[0, 1]) < 0.02


def cover(out):
    """The rectangle of a noisy patch on black, of which a few pixels are black themselves."""
    some = out.any(-1)
    return np.outer(some.mean(1) > 0.05, some.mean(0) > 0.05)


def test_an_image_too_small_for_the_rectangle_is_left_alone():
    image = np.zeros((1, 1, 3), np.uint8)
    assert not transforms.random_erasing(image, Draws(0), probability=1.0).any()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("random_erasing", {"fill": "pixel"}, ["'pixel'", "noise"]),
        ("random_erasing", {"fill": 0}, ["fill=0", "'mean'"]),
        ("random_erasing", {"area": (0.5, 0.1)}, ["area=0.5", "0 .. 0.1"]),
        ("random_erasing", {"ratio": (-1.0, 2.0)}, ["ratio=-1.0"]),
        ("random_erasing", {"mean": (0.5, 0.5)}, ["mean=(0.5, 0.5)"]),
        ("gaussian_blur", {"sigma": (0.0, 1.0)}, ["sigma=0.0"]),
        ("colour_jitter", {"hue": 0.6}, ["hue=0.6", "0 .. 0.5"]),
        ("colour_jitter", {"contrast": -0.1}, ["-0.1"]),
        ("rand_augment", {"magnitude": 40}, ["magnitude=40", "0 .. 30"]),
        ("rand_augment", {"magnitude": 9.5}, ["magnitude=9.5", "9"]),
        ("rand_augment", {"fill": (1.5, 0, 0)}, ["fill=(1.5, 0, 0)"]),
        ("trivial_augment", {"interpolation": "linear"}, ["'linear'", "bilinear"]),
    ],
)
def test_settings_out_of_range_are_refused_before_the_run(name, settings, words):
    with pytest.raises(UserError) as error:
        chain([(name, settings)])
    for word in words:
        assert word in str(error.value)
