import json
import math
import pickle

import numpy as np
import pytest

from imagenet_jax.data.augmentation.augment import View, central, chain, flip, pad_crop, random_resized_crop
from imagenet_jax.data.batches.views import Pixels, Rows, TrainViews
from imagenet_jax.data.order import Draws
from imagenet_jax.errors import UserError


def whole(height, width, size=224):
    """The view that training starts from."""
    return central(height, width, size, 1.0)


def torchvision_crop(rng, height, width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """RandomResizedCrop.get_params as torchvision publishes it, with numpy's random numbers; (y, x, height, width)."""
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        target = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*log_ratio))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    in_ratio = width / height
    if in_ratio < min(ratio):
        w, h = width, round(width / min(ratio))
    elif in_ratio > max(ratio):
        w, h = round(height * max(ratio)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (224, 1000)])
def test_random_resized_crop_has_torchvisions_distribution(height, width):
    n, rng = 20_000, np.random.default_rng(0)
    theirs = np.array([torchvision_crop(rng, height, width) for _ in range(n)], float)
    views = (random_resized_crop(whole(height, width), Draws(0, 0, i, 0)) for i in range(n))
    ours = np.array([(v.y, v.x, v.box_height, v.box_width) for v in views], float)
    for of in (
        lambda b: b[:, 2] * b[:, 3] / (height * width),  # share of the area
        lambda b: np.log(b[:, 3] / b[:, 2]),  # log of the aspect ratio
        lambda b: b[:, 0],
        lambda b: b[:, 1],
        lambda b: (b[:, 1] + b[:, 3] / 2) / width,  # centre
    ):
        a, b = of(theirs), of(ours)
        assert abs(a.mean() - b.mean()) < 5 * np.hypot(a.std(), b.std()) / np.sqrt(n)
        # Two samples of one distribution differ at most by this in their distribution functions, but for 1 in 10,000 (Smirnov).
        places = np.unique(np.concatenate([a, b]))
        cdf = [np.searchsorted(np.sort(x), places, side="right") / n for x in (a, b)]
        assert np.abs(cdf[0] - cdf[1]).max() < 2.23 * np.sqrt(2 / n)


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (1, 1), (1, 2), (2, 3), (1, 1000), (1000, 1), (3, 4), (7, 5), (4000, 30), (224, 224)]
)
def test_random_resized_crop_stays_inside_the_image(height, width):
    for i in range(1000):
        v = random_resized_crop(whole(height, width), Draws(0, i))
        assert v.box_height >= 1
        assert v.box_width >= 1
        assert 0 <= v.y <= height - v.box_height
        assert 0 <= v.x <= width - v.box_width
        assert (v.height, v.width, v.size, v.flip) == (height, width, 224, False)


def test_random_resized_crop_reaches_every_corner():
    views = [random_resized_crop(whole(20, 30), Draws(0, i)) for i in range(3000)]
    for top in (True, False):
        for left in (True, False):
            assert any(
                (v.y == 0 if top else v.y + v.box_height == 20) and (v.x == 0 if left else v.x + v.box_width == 30) for v in views
            )


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (1, 1000, (0, 499, 1, 1)),  # round(4 / 3) = 1 wide, centred
        (1000, 1, (499, 0, 1, 1)),
        (30, 1000, (0, 480, 30, 40)),  # the widest box allowed
        (1000, 30, (480, 0, 40, 30)),
        (100, 100, (0, 0, 100, 100)),
    ],
)
def test_random_resized_crop_falls_back_to_the_largest_centred_box(height, width, box):
    v = random_resized_crop(whole(height, width), Draws(0), area=(1.0, 1.0))  # no try can succeed
    assert (v.y, v.x, v.box_height, v.box_width) == box
    assert box == torchvision_crop(np.random.default_rng(0), height, width, scale=(5.0, 6.0))


def test_random_resized_crop_heeds_its_settings():
    views = [random_resized_crop(whole(400, 400), Draws(i), area=(0.25, 0.25), ratio=(1.0, 1.0)) for i in range(50)]
    assert {(v.box_height, v.box_width) for v in views} == {(200, 200)}
    wide = [random_resized_crop(whole(400, 400), Draws(i), area=(0.1, 0.2), ratio=(2.0, 3.0)) for i in range(50)]
    assert all(1.9 < v.box_width / v.box_height < 3.1 for v in wide)


@pytest.mark.parametrize("probability", [0.5, 0.1])
def test_flip_rate(probability):
    n = 10_000
    flipped = sum(flip(whole(9, 9), Draws(0, i), probability=probability).flip for i in range(n))
    assert abs(flipped / n - probability) < 5 * math.sqrt(probability * (1 - probability) / n)


def test_flip_of_a_flipped_view_turns_it_back():
    view = whole(9, 9)._replace(flip=True)
    assert flip(view, Draws(0), probability=1.0).flip is False
    assert flip(view, Draws(0), probability=0.0).flip is True


@pytest.mark.parametrize("padding", [1, 4])
def test_pad_crop_shifts_are_uniform(padding):
    side = 2 * padding + 1
    counts = np.zeros((side, side))
    n = 200 * side * side
    for i in range(n):
        v = pad_crop(whole(32, 32, 32), Draws(i), padding=padding)
        assert (v.box_height, v.box_width) == (32, 32)
        counts[v.y + padding, v.x + padding] += 1
    free = side * side - 1
    assert ((counts - 200) ** 2 / 200).sum() < free + 5 * math.sqrt(2 * free)


def test_pad_crop_counts_in_pixels_of_the_models_square():
    shifts = {pad_crop(whole(64, 100, 32), Draws(i), padding=2).y for i in range(200)}
    assert shifts == {-4, -2, 0, 2, 4}


def torchvision_eval_box(height, width, size, resize):
    """Resize(resize) and CenterCrop(size) in pixels of the original: (y, x, side), not rounded."""
    short = min(height, width)
    new_height, new_width = (resize if side == short else int(resize * side / short) for side in (height, width))
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return top * height / new_height, left * width / new_width, size * short / resize


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (500, 375), (256, 256), (333, 500), (1000, 300), (97, 113), (2000, 3001), (64, 48)]
)
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (224, 232), (288, 288)])
def test_central_shows_what_torchvision_shows(height, width, size, resize):
    v = central(height, width, size, size / resize)
    y, x, side = torchvision_eval_box(height, width, size, resize)
    assert v.box_height == v.box_width
    assert v.size == size
    assert -1e-5 <= side - v.box_height < 1  # a box has whole pixels, rounded down
    # Theirs rounds twice to pixels of the resized image, which are this large in the original; ours to pixels of the original.
    tolerance = 1.0 * min(height, width) / resize + 0.75
    assert abs(v.y - y) <= tolerance
    assert abs(v.x - x) <= tolerance
    assert 0 <= v.y <= height - v.box_height
    assert 0 <= v.x <= width - v.box_width


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 1000), (1000, 1), (2, 2)])
@pytest.mark.parametrize("crop_ratio", [0.1, 0.875, 1.0])
def test_central_of_tiny_images_has_at_least_one_pixel(height, width, crop_ratio):
    v = central(height, width, 224, crop_ratio)
    assert v.box_height == v.box_width >= 1
    assert 0 <= v.y <= height - v.box_height
    assert 0 <= v.x <= width - v.box_width


def test_alternating_flips_show_both_sides_of_every_image_in_two_epochs():
    """What the loader's views show of each example in four epochs: one side and the other by turns, beginning with either."""
    n = 400
    views = TrainViews(chain((("flip", {"alternating": True}),)), seed=3, batch_size=n, steps=range(4))
    seen = np.zeros((4, n), bool)
    for epoch in views.steps:
        for row in views(epoch, Rows(0, n), n, Pixels(None, 9, 1.0, True)):
            seen[epoch, row.index] = row.view_of(9, 9).flip
    np.testing.assert_array_equal(seen[1:], ~seen[:-1])
    assert abs(seen[0].mean() - 0.5) < 5 * 0.5 / math.sqrt(n)


RECIPE = (("random_resized_crop", {"area": (0.25, 1.0), "ratio": (0.5, 2.0)}), ("pad_crop", {"padding": 3}), ("flip", {}))


def test_chain_is_its_parts_in_order_with_one_stream_of_draws():
    draws, view = Draws(1, 2), whole(375, 500)
    expected = flip(pad_crop(random_resized_crop(view, draws, area=(0.25, 1.0), ratio=(0.5, 2.0)), draws, padding=3), draws)
    assert chain(RECIPE).view(view, Draws(1, 2)) == expected
    assert chain(()).view(view, Draws(1, 2)) == view


def test_chain_of_a_config_read_back_from_json_gives_the_same_views():
    ours, again = chain(RECIPE), chain(json.loads(json.dumps(RECIPE)))
    for i in range(100):
        assert ours.view(whole(375, 500), Draws(i)) == again.view(whole(375, 500), Draws(i))


def test_chain_without_transforms_hands_the_same_array_back():
    image = np.zeros((9, 9, 3), np.uint8)
    assert chain(RECIPE).pixels(image, Draws(0)) is image
    assert not chain(RECIPE).has_pixels


def test_chain_changes_pixels_after_the_view_with_the_same_stream_of_draws():
    made = chain([("flip", {}), ("greyscale", {"probability": 0.5})])
    assert made.has_pixels
    image, seen = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8), set()
    for i in range(50):
        draws, again = Draws(i), Draws(i)
        view = made.view(whole(9, 9), draws)
        out = made.pixels(image.copy(), draws)
        flipped, grey = again.uniform() < 0.5, again.uniform() < 0.5
        assert (view.flip, np.ptp(out, axis=-1).max() == 0) == (flipped, grey)
        seen.add((flipped, grey))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ([("random_resize_crop", {})], ["random_resize_crop", "Did you mean 'random_resized_crop'"]),
        ([("flip", {"probabilty": 1.0})], ["probabilty", "Did you mean 'probability'", "flip"]),
        ([("pad_crop", {"view": 1})], ["view", "padding"]),  # an argument, but no setting
        ([("greyscal", {})], ["greyscal", "Did you mean 'greyscale'"]),
        ([("greyscale", {}), ("flip", {})], ["flip", "before"]),
        ([("greyscale", {}), ("random_resized_crop", {})], ["random_resized_crop", "first"]),
        ([("flip", {}), ("random_resized_crop", {})], ["random_resized_crop", "first"]),
        ([("random_resized_crop", {}), ("random_resized_crop", {})], ["random_resized_crop", "first"]),
        (["flip"], ["'flip'", "{settings}"]),
        ([("flip",)], ["('flip',)", "{settings}"]),
        ([("flip", None)], ["('flip', None)"]),
        ([(["flip"], {})], ["['flip']"]),
        ([("flip", {"probability": 2.0})], ["flip", "probability=2.0", "0 .. 1"]),
        ([("greyscale", {"probability": -0.1})], ["greyscale", "probability=-0.1", "0 .. 1"]),
        ([("pad_crop", {"padding": "4"})], ["pad_crop", "padding='4'", "4"]),
        ([("pad_crop", {"padding": 4.5})], ["pad_crop", "padding=4.5"]),
        ([("random_resized_crop", {"area": 0.5})], ["area=0.5", "(0.08, 1.0)"]),
        ([("random_resized_crop", {"area": [0.5]})], ["area=[0.5]", "(0.08, 1.0)"]),
        ([("random_resized_crop", {"area": (2.0, 3.0)})], ["random_resized_crop: area=2.0 must lie in 0 .. 1"]),
        ([("random_resized_crop", {"area": (0.5, 0.1)})], ["random_resized_crop: area=0.1 must lie in 0.5 .. 1"]),
        ([("random_resized_crop", {"ratio": (0.0, 1.0)})], ["random_resized_crop: ratio=0.0"]),
        ([("pad_crop", {"padding": -3})], ["pad_crop: padding=-3"]),
    ],
)
def test_chain_refuses_what_it_cannot_do(augment, words):
    with pytest.raises(UserError) as error:
        chain(augment)
    for word in words:
        assert word in str(error.value)


def test_a_chain_can_be_sent_to_another_process():
    ours = chain([*RECIPE, ("trivial_augment", {"interpolation": "nearest"}), ("random_erasing", {})])
    theirs, image = pickle.loads(pickle.dumps(ours)), np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for i in range(20):
        assert ours.view(whole(375, 500), Draws(i)) == theirs.view(whole(375, 500), Draws(i))
        np.testing.assert_array_equal(ours.pixels(image.copy(), Draws(i)), theirs.pixels(image.copy(), Draws(i)))


def test_views_of_one_example_depend_on_seed_epoch_and_id_alone():
    apply = chain([("random_resized_crop", {}), ("flip", {})]).view
    keys = [(seed, epoch, i, 0) for seed in range(3) for epoch in range(3) for i in range(3)]
    views = {apply(whole(375, 500), Draws(*key)) for key in keys}
    assert len(views) == len(keys)
    assert apply(whole(375, 500), Draws(0, 1, 2, 0)) == apply(whole(375, 500), Draws(0, 1, 2, 0))


def test_views_never_change_silently():
    view = chain([("random_resized_crop", {}), ("flip", {})]).view(whole(375, 500), Draws(0, 1, 2, 0))
    assert view == View(height=375, width=500, size=224, y=5, x=111, box_height=337, box_width=334, flip=False)
    assert chain([("pad_crop", {})]).view(whole(32, 32, 32), Draws(0, 1, 2, 0)) == View(
        height=32, width=32, size=32, y=3, x=-3, box_height=32, box_width=32, flip=False
    )
