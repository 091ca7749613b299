"""Mixup and CutMix against the papers' formulas; the same on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import sharding
from imagenet_jax.ops.mix import mix, outside_box

N, SIDE, CLASSES = 8, 20, 5
OFF = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, SIDE, SIDE, 3), np.uint8)
    return images, np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, N)] * 0.9 + 0.02


@functools.cache
def jitted(**settings):
    return jax.jit(functools.partial(mix, **{**OFF, **settings}))


def run(batch, seed, **settings):
    images, targets = jitted(**settings)(jax.random.key(seed), *batch)
    return np.asarray(images), np.asarray(targets)


def share_of(batch, targets):
    """The share that an example kept, from what became of a target that differs from its partner's."""
    own, other = batch[1], batch[1][::-1]
    row, column = np.argwhere(own != other)[0]
    return (targets[row, column] - other[row, column]) / (own[row, column] - other[row, column])


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_the_papers_formula_on_images_and_targets(batch, seed):
    images, targets = run(batch, seed, mixup_alpha=0.8)
    share = share_of(batch, targets)
    assert 0 <= share <= 1
    own, other = batch[0].astype(float), batch[0][::-1].astype(float)
    np.testing.assert_allclose(images, share * own + (1 - share) * other, atol=1e-3)
    np.testing.assert_allclose(targets, share * batch[1] + (1 - share) * batch[1][::-1], atol=1e-6)
    assert (images.dtype, targets.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_pastes_a_box_of_the_partner_and_shares_the_label_by_its_area(batch, seed):
    images, targets = run(batch, seed, cutmix_alpha=1.0)
    own, other = batch[0].astype(np.float32), batch[0][::-1].astype(np.float32)
    pasted = ((images == other) & (images != own)).any(-1).any(0)
    rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
    box = np.zeros((SIDE, SIDE), bool)
    if pasted.any():
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    np.testing.assert_array_equal(images, np.where(box[None, :, :, None], other, own))
    share = 1 - box.mean()
    np.testing.assert_allclose(targets, share * batch[1] + (1 - share) * batch[1][::-1], atol=1e-6)


def reference_box(rng, height, width, alpha):
    """rand_bbox of the authors' code (Yun et al. 2019), with numpy's random numbers; (y1, y2, x1, x2)."""
    ratio = np.sqrt(1 - rng.beta(alpha, alpha))
    cut_h, cut_w = int(height * ratio), int(width * ratio)
    cy, cx = rng.integers(height), rng.integers(width)
    y = np.clip([cy - cut_h // 2, cy + cut_h // 2], 0, height)
    x = np.clip([cx - cut_w // 2, cx + cut_w // 2], 0, width)
    return *y, *x


def test_cutmix_boxes_have_the_authors_distribution():
    n, height, width = 20_000, 30, 40
    rng = np.random.default_rng(0)
    make = jax.jit(jax.vmap(lambda key, share: outside_box(key, height, width, share)))
    weights = np.asarray(make(jax.random.split(jax.random.key(0), n), rng.beta(1.0, 1.0, n).astype(np.float32)))
    assert {*np.unique(weights).tolist()} == {0.0, 1.0}
    rows, columns = (weights == 0).any(2), (weights == 0).any(1)
    ours = np.stack([rows.sum(1), columns.sum(1), rows.argmax(1), columns.argmax(1)], axis=1).astype(float)
    boxes = np.array([reference_box(rng, height, width, 1.0) for _ in range(n)])
    sizes = np.stack([boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]], axis=1)
    empty = (sizes == 0).any(1)
    theirs = np.concatenate([sizes, boxes[:, [0, 2]]], axis=1) * ~empty[:, None]
    for a, b in zip(ours.T, theirs.T, strict=True):
        places = np.unique(np.concatenate([a, b]))
        cdf = [np.searchsorted(np.sort(x), places, side="right") / n for x in (a, b)]
        assert np.abs(cdf[0] - cdf[1]).max() < 2.23 * np.sqrt(2 / n)  # Smirnov, 1 in 10,000


def shares(n, **settings):
    """The weights that `n` batches kept, and the images of a black and a white example mixed."""
    images = np.zeros((2, 8, 8, 3), np.float32)
    images[1] = 1
    make = jax.jit(jax.vmap(lambda key: mix(key, images, np.eye(2, dtype=np.float32), **{**OFF, **settings})))
    mixed, targets = make(jax.random.split(jax.random.key(1), n))
    return np.asarray(targets)[:, 0, 0], np.asarray(mixed)[:, 0, :, :, 0]


@pytest.mark.parametrize("alpha", [0.2, 2.0])
def test_mixups_share_is_beta_distributed(alpha):
    n = 20_000
    ours, theirs = np.sort(shares(n, mixup_alpha=alpha)[0]), np.sort(np.random.default_rng(0).beta(alpha, alpha, n))
    assert abs(ours.mean() - 0.5) < 5 * np.sqrt(1 / (4 * (2 * alpha + 1)) / n)
    places = np.linspace(0, 1, 201)
    assert np.abs(np.searchsorted(ours, places) - np.searchsorted(theirs, places)).max() / n < 2.23 * np.sqrt(2 / n)


def test_one_of_both_with_the_switchs_probability_and_neither_else():
    n = 4000
    share, mixed = shares(n, mixup_alpha=1.0, cutmix_alpha=1.0, probability=0.8, switch=0.3)
    untouched = share == 1
    blended = (np.ptp(mixed, axis=(1, 2)) == 0) & (share < 1)
    np.testing.assert_allclose(mixed.mean((1, 2)), 1 - share, atol=1e-6)  # the black image's share of white
    # A box of less than two pixels, or one all outside, is none: 1 - share < (2 / 8)^2 for 1 in 16 of CutMix.
    assert abs(np.mean(blended) - 0.8 * 0.7) < 5 * np.sqrt(0.25 / n)
    assert 0.2 - 0.03 < np.mean(untouched) < 0.2 + 0.8 * 0.3 / 16 + 0.03


def test_probability_zero_changes_nothing(batch):
    for settings in ({"mixup_alpha": 0.4, "probability": 0.0}, {"cutmix_alpha": 1.0, "probability": 0.0}):
        images, targets = run(batch, 0, **settings)
        np.testing.assert_array_equal(images, batch[0])
        np.testing.assert_array_equal(targets, batch[1])


@pytest.mark.parametrize("settings", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}])
def test_targets_stay_distributions(batch, settings):
    for seed in range(20):
        images, targets = run(batch, seed, **settings)
        np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
        assert targets.min() >= 0
        assert 0 <= images.min() <= images.max() <= 255.001


def test_one_device_and_eight_mix_alike(batch):
    settings = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    mesh = sharding.make_mesh()
    assert mesh.size == 8
    place, split = sharding.replicated(mesh), sharding.batched(mesh)
    many = jax.jit(functools.partial(mix, **settings), in_shardings=(place, split, split), out_shardings=(split, split))
    for seed in range(6):
        one, eight = run(batch, seed, **settings), many(jax.random.key(seed), *batch)
        for a, b in zip(one, eight, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    text = many.lower(jax.random.key(0), *batch).compile().as_text()
    assert "u8[1,20,20,3]{3,2,1,0} collective-permute" in text  # each device sends its bytes to one other,
    assert "all-gather" not in text  # not to all


def test_float64_stays_float64(x64):
    key, images = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float64)
    targets = jax.ShapeDtypeStruct((2, 5), jnp.float64)
    wide = jax.eval_shape(functools.partial(mix, mixup_alpha=1.0, cutmix_alpha=1.0), key, images, targets)
    assert [x.dtype for x in wide] == [jnp.float64, jnp.float64]
