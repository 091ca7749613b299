"""Averages of the weights against their definitions."""

import jax.numpy as jnp
import pytest

from imagenet_jax.optim import averages


def follow(average, values, start=1.0, rates=None):
    """The average of one number after each of the steps that leave it at `values`, and what training goes on with."""
    kept, seen = averages.init({"params": jnp.asarray(start), "batch_stats": {}}), []
    for i, value in enumerate(values):
        new = {"params": jnp.asarray(value), "batch_stats": {}}
        kept, new = average(kept, new, jnp.asarray(i), jnp.asarray(rates[i] if rates else 0.1))
        seen.append((float(kept["params"]), float(new["params"])))
    return [a for a, _ in seen], [b for _, b in seen]


def test_an_exponential_average_follows_the_capped_decay():
    first = 1 + (1 - 1 / 10) * (2 - 1)
    averaged, going_on = follow(averages.ema(0.9), (2.0, 3.0))
    assert averaged == pytest.approx([first, first + (1 - 2 / 11) * (3 - first)])
    assert going_on == [2, 3]
    assert follow(averages.ema(0.9), [2.0] * 300)[0][-1] == pytest.approx(2)
    late = averages.init({"params": jnp.asarray(1.0), "batch_stats": {}}) | {"weight": jnp.asarray(10_000.0)}
    moved, _ = averages.ema(0.9)(late, {"params": jnp.asarray(2.0), "batch_stats": {}}, jnp.asarray(0), jnp.asarray(0.1))
    assert float(moved["params"]) == pytest.approx(1.1)


def test_an_average_moves_every_interval_and_counts_its_own_updates():
    moved, _ = follow(averages.ema(0.9, 3), [1.0] * 6, start=0.0)
    assert moved == pytest.approx([0, 0, 0.9, 0.9, 0.9, 0.9 + (1 - 2 / 11) * 0.1])


def test_swa_is_the_plain_mean_from_its_start_on_every_interval():
    """Steps 1 .. 8 end at their own number; the mean begins after step 3, and takes in 3, 5 and 7."""
    averaged, going_on = follow(averages.swa(3, 2), [1.0, 2, 3, 4, 5, 6, 7, 8])
    assert averaged == pytest.approx([1, 2, 3, 3, 4, 4, 5, 5])
    assert going_on == [1, 2, 3, 4, 5, 6, 7, 8]


def test_swa_counts_what_went_into_it_not_steps():
    """A step that was skipped leaves the average's state as it was: the next one weighs as if it had not been due."""
    kept = averages.init({"params": jnp.asarray(0.0), "batch_stats": {}})
    for step, value in ((1, 4.0), (3, 8.0)):  # step 2 was skipped
        kept, _ = averages.swa(2)(kept, {"params": jnp.asarray(value), "batch_stats": {}}, jnp.asarray(step), jnp.asarray(0.1))
    assert float(kept["params"]) == pytest.approx(6)


def test_training_returns_to_lookaheads_slow_weights():
    """Every second step; of themselves they keep 0.8 x (2/4)^3 = 0.1, then 0.8."""
    averaged, going_on = follow(averages.lookahead(0.8, 2, 4), [5.0, 6.0, 7.0, 8.0])
    slow = 0.1 * 1 + 0.9 * 6
    assert averaged == pytest.approx([1, slow, slow, 0.8 * slow + 0.2 * 8])
    assert going_on == pytest.approx([5, slow, 7, 0.8 * slow + 0.2 * 8])


def test_schedule_free_weighs_with_the_square_of_the_rate():
    averaged, _ = follow(averages.schedule_free, [2.0, 6.0], rates=[0.1, 0.2])
    assert averaged == pytest.approx([2, (1 * 2 + 4 * 6) / 5])
    assert float(averages.between(0.9, jnp.asarray(1.0), {"params": jnp.asarray(3.0)})) == pytest.approx(2.8)
