import statistics

import numpy as np
import pytest

from imagenet_jax.data import order

SIZES = [1, 2, 3, 4, 5, 7, 16, 17, 100, 1438, 5000, 65_536, 65_537]


@pytest.mark.parametrize("size", SIZES)
def test_permute_is_a_permutation(size):
    for key in (0, 1, 2**64 - 1):
        ids = order.permute(np.arange(size), size, key)
        assert ids.dtype == np.int64
        np.testing.assert_array_equal(np.sort(ids), np.arange(size))


def test_permute_is_a_permutation_of_all_of_imagenet_and_looks_random():
    size = 1_281_167
    one, other = (order.permute(np.arange(size), size, order.hash64(0, epoch)) for epoch in (0, 1))
    np.testing.assert_array_equal(np.sort(one), np.arange(size))
    # Correlations of independent orders are normal with a deviation of 1 / sqrt(size); 5 deviations.
    for a, b in ((one, other), (one, np.arange(size)), (one[1:], one[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(size)
    # Random permutations agree in one place on average (Poisson), and have one pair of neighbours that stay neighbours.
    assert np.count_nonzero(one == other) < 12
    assert np.count_nonzero(np.diff(one) == 1) < 12


@pytest.mark.parametrize("size", [2, 5, 10, 32, 37])
def test_every_example_comes_equally_often_to_every_place(size):
    rounds = 2000
    counts = np.zeros((size, size))
    for epoch in range(rounds):
        counts[np.arange(size), order.permute(np.arange(size), size, order.hash64(0, epoch))] += 1
    expected, free = rounds / size, (size - 1) ** 2
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < free + 5 * np.sqrt(2 * free) + 10


def test_orders_of_a_tiny_data_set_come_up_equally_often():
    rounds = 6000
    seen: dict[tuple[int, ...], int] = {}
    for epoch in range(rounds):
        ids = tuple(order.permute(np.arange(4), 4, order.hash64(0, epoch)).tolist())
        seen[ids] = seen.get(ids, 0) + 1
    assert len(seen) == 24
    assert all(170 < n < 330 for n in seen.values())  # 250 expected, deviation 16; six rounds instead of eight gave 348


@pytest.mark.parametrize(("size", "batch"), [(10, 4), (100, 7), (5, 12), (1, 3)])
def test_each_epoch_holds_every_example_once_and_batches_straddle_epochs(size, batch):
    epochs, ids, _ = zip(*(order.examples(step * batch, batch, size, 3) for step in range(12 * size // batch + 1)), strict=True)
    epochs, ids = np.concatenate(epochs), np.concatenate(ids)
    np.testing.assert_array_equal(epochs, np.arange(len(epochs)) // size)
    for epoch in range(len(ids) // size):
        np.testing.assert_array_equal(np.sort(ids[epoch * size : (epoch + 1) * size]), np.arange(size))


@pytest.mark.parametrize("repeats", [1, 3])
def test_any_stretch_is_a_slice_of_the_one_row(repeats):
    whole = order.examples(0, 1000, 123, 7, repeats)
    for start, count in ((0, 1), (122, 2), (123, 123), (500, 250), (999, 1), (40, 0)):
        part = order.examples(start, count, 123, 7, repeats)
        np.testing.assert_array_equal(part, np.array(whole)[:, start : start + count])


@pytest.mark.parametrize(("size", "repeats"), [(12, 3), (13, 3), (100, 4), (5, 7), (6, 1)])
def test_with_repeats_an_epoch_of_the_same_length_shows_fewer_images_in_distinct_views(size, repeats):
    epochs, ids, views = order.examples(0, 3 * size, size, 5, repeats)
    once = order.examples(0, 3 * size, size, 5)[1]
    np.testing.assert_array_equal(epochs, np.arange(3 * size) // size)
    for epoch in range(3):
        here = slice(epoch * size, (epoch + 1) * size)
        # DeiT's RASampler: every entry of the epoch's order `repeats` times in a row, cut off at the epoch's length.
        np.testing.assert_array_equal(ids[here], np.repeat(once[here], repeats)[:size])
        assert len({*zip(ids[here].tolist(), views[here].tolist(), strict=True)}) == size
        assert len({*ids[here].tolist()}) == -(-size // repeats)
    assert {*views.tolist()} == set(range(min(size, repeats)))


@pytest.mark.parametrize(("size", "repeats", "batch"), [(24, 3, 12), (25, 3, 12), (40, 4, 10), (7, 2, 2), (9, 4, 3), (30, 1, 6)])
def test_views_of_one_image_are_dealt_out_over_the_batch(size, repeats, batch):
    row = np.array(order.examples(0, 4 * batch, size, 5, repeats))
    dealt = np.array(order.examples(0, 4 * batch, size, 5, repeats, batch))
    apart = batch // repeats
    for step in range(4):
        before, after = row[:, step * batch : (step + 1) * batch], dealt[:, step * batch : (step + 1) * batch]
        assert sorted(before.T.tolist()) == sorted(after.T.tolist())  # every batch holds what it held
        if size % batch == 0 and batch % repeats == 0:
            for view in range(1, repeats):
                np.testing.assert_array_equal(after[1, :apart], after[1, view * apart : (view + 1) * apart])
                assert {*after[2, view * apart : (view + 1) * apart].tolist()} == {view}
        np.testing.assert_array_equal(after[:, 1:], order.examples(step * batch + 1, batch - 1, size, 5, repeats, batch))
    if repeats == 1 or batch < repeats:
        np.testing.assert_array_equal(row, dealt)


def test_seeds_and_epochs_are_hashed_not_added():
    orders = {(seed, epoch): tuple(order.examples(epoch * 50, 50, 50, seed)[1].tolist()) for seed in range(8) for epoch in range(8)}
    assert len(set(orders.values())) == 64
    draws = {order.Draws(seed, epoch, example, 0).bits() for seed in range(5) for epoch in range(5) for example in range(5)}
    assert len(draws) == 125


def test_the_order_never_changes_silently():
    # A change here breaks the resume of every run that exists.
    assert order.hash64(0) == 0xE220A8397B1DCDAF  # splitmix64's first output from state 0
    assert order.hash64(0, 1) == 627405149472732430
    assert order.permute(np.arange(5), 5, 1).tolist() == [2, 1, 3, 4, 0]
    epochs, ids, views = order.examples(1_281_165, 4, 1_281_167, 42)
    assert (epochs.tolist(), ids.tolist()) == ([0, 0, 1, 1], [804083, 84164, 913879, 22092])
    assert views.tolist() == [0, 0, 0, 0]
    repeated = [x.tolist() for x in order.examples(1_281_165, 4, 1_281_167, 42, 3)]
    assert repeated == [[0, 0, 1, 1], [683200, 683200, 913879, 913879], [0, 1, 0, 1]]
    assert order.examples(10**12, 2, 50_000, 42)[1].tolist() == [34744, 38389]


def test_draws_never_change_silently():
    draws = order.Draws(0, 1, 2, 3)
    values = [draws.bits(), draws.uniform(), draws.uniform(-1, 3), draws.integer(0, 99), draws.integer(-4, 4)]
    assert values == [12375841185739427924, 0.15990885405334454, -0.8903168941289348, 5, 3]
    assert draws.normal() == pytest.approx(-0.6221943689001717, rel=1e-12)  # the C library's cosine
    assert (draws.permutation(6), draws.bytes(9).tolist()) == ([4, 3, 2, 1, 5, 0], [141, 242, 52, 131, 87, 238, 90, 230, 192])


def test_bytes_are_those_of_the_next_bits():
    draws, again = order.Draws(5), order.Draws(5)
    expected = b"".join(again.bits().to_bytes(8, "little") for _ in range(3))
    assert draws.bytes(21).tobytes() == expected[:21]
    assert draws.bits() == again.bits()
    assert draws.bytes(0).shape == (0,)


def test_normal_is_normal():
    draws = order.Draws(3)
    x = np.sort([draws.normal() for _ in range(20_000)])
    places = np.linspace(-4, 4, 81)
    cdf = [statistics.NormalDist().cdf(p) for p in places]
    assert np.abs(np.searchsorted(x, places) / len(x) - cdf).max() < 2.23 / np.sqrt(len(x))  # Kolmogorov, 1 in 10,000


def test_permutations_are_equally_likely():
    draws = order.Draws(4)
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(6000):
        one = tuple(draws.permutation(4))
        seen[one] = seen.get(one, 0) + 1
    assert len(seen) == 24
    assert all(170 < n < 330 for n in seen.values())  # 250 expected, deviation 16


def test_draws_with_different_keys_differ():
    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (2**40,), (2**63,)]
    assert len({order.Draws(*key).bits() for key in keys}) == len(keys)
    assert order.Draws(5, 6).bits() == order.Draws(5, 6).bits()


def test_uniform_is_uniform_in_the_half_open_unit_interval():
    draws = order.Draws(11)
    x = np.array([draws.uniform() for _ in range(20_000)])
    assert x.min() >= 0
    assert x.max() < 1
    counts, _ = np.histogram(x, 20, (0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi2 with 19 degrees of freedom: 1 in 10,000
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 0.035  # 5 deviations
    # Neighbouring examples have streams of their own: their first draws are independent too.
    first = np.array([order.Draws(0, 0, i, 0).uniform() for i in range(5000)])
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.071
    assert abs(first.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 5000)


def test_uniform_covers_its_range():
    draws = order.Draws(1)
    x = np.array([draws.uniform(0.08, 1.0) for _ in range(5000)])
    assert 0.08 <= x.min() < 0.081
    assert 0.999 < x.max() <= 1.0


def test_the_largest_draw_is_still_below_one(monkeypatch):
    monkeypatch.setattr(order.Draws, "bits", lambda self: 2**64 - 1)
    assert order.Draws(0).uniform() < 1
    assert order.Draws(0).integer(0, 8) == 8


@pytest.mark.parametrize(("low", "high"), [(0, 8), (-4, 4), (3, 3), (0, 1)])
def test_integers_reach_both_bounds_equally_often(low, high):
    draws = order.Draws(low, high)
    n = 900 * (high - low + 1)
    values, counts = np.unique([draws.integer(low, high) for _ in range(n)], return_counts=True)
    assert values.tolist() == list(range(low, high + 1))
    assert np.abs(counts - 900).max() < 5 * np.sqrt(900)
