"""Schedules, masks, averages and optimizers against hand-computed values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.optim import ema, masks, optimizers, schedules


def test_cosine_with_warm_up():
    rate = schedules.make("cosine", peak=0.4, total_steps=110, warmup_steps=10)
    assert [float(rate(s)) for s in (0, 4, 9, 10, 60, 110)] == pytest.approx([0.4 / 11, 0.4 * 5 / 11, 0.4 * 10 / 11, 0.4, 0.2, 0])


def test_steps_divide_at_shares_of_the_training():
    rate = schedules.make("step", peak=1.0, total_steps=90, decay_at=(1 / 3, 2 / 3))
    assert [float(rate(s)) for s in (0, 29, 30, 59, 60, 89)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_constant_and_unknown():
    assert float(schedules.make("constant", peak=0.3, total_steps=5)(4)) == pytest.approx(0.3)
    with pytest.raises(UserError, match="Did you mean 'cosine'"):
        schedules.make("cosin", peak=0.3, total_steps=5)


def test_peak_scales_with_the_batch():
    assert schedules.peak(0.1, 1024, "linear", 256) == pytest.approx(0.4)
    assert schedules.peak(0.1, 1024, "sqrt", 256) == pytest.approx(0.2)
    assert schedules.peak(0.1, 1024, "none", 256) == pytest.approx(0.1)


def test_decay_mask_goes_by_path():
    params = {"bn1": {"scale": 1, "bias": 1}, "fc": {"kernel": 1, "bias": 1}, "layer_scale": {"kernel": 1}}
    assert masks.decayed(params, [r"(^|/)(bias|scale)$"]) == {
        "bn1": {"scale": False, "bias": False},
        "fc": {"kernel": True, "bias": False},
        "layer_scale": {"kernel": True},
    }
    assert all(jax.tree.leaves(masks.decayed(params, [])))


def test_ema_follows_the_capped_decay():
    average = {"w": jnp.asarray(1.0)}
    for step, value in enumerate((2.0, 3.0)):
        average = ema.update(average, {"w": jnp.asarray(value)}, 0.9, jnp.asarray(step))
    first = 1 + (1 - 1 / 10) * (2 - 1)
    assert float(average["w"]) == pytest.approx(first + (1 - 2 / 11) * (3 - first))
    late = ema.update({"w": jnp.asarray(1.0)}, {"w": jnp.asarray(2.0)}, 0.9, jnp.asarray(10_000))
    assert float(late["w"]) == pytest.approx(1.1)


def test_weight_decay_is_coupled_and_comes_before_momentum():
    tx = optimizers.make("sgd", momentum=0.9, nesterov=False, weight_decay=0.1, no_weight_decay=[], clip_norm=0.0)
    params = {"w": jnp.asarray(2.0)}
    state = tx.init(params)
    first, state = tx.update({"w": jnp.asarray(1.0)}, state, params)
    second, _ = tx.update({"w": jnp.asarray(1.0)}, state, params)
    assert float(first["w"]) == pytest.approx(1.2)  # 1 + 0.1 x 2
    assert float(second["w"]) == pytest.approx(1.2 + 0.9 * 1.2)


def test_clipping_scales_to_the_norm():
    tx = optimizers.make("sgd", momentum=0.0, nesterov=False, weight_decay=0.0, no_weight_decay=[], clip_norm=1.0)
    grads = {"a": jnp.asarray([3.0]), "b": jnp.asarray([4.0])}
    clipped, _ = tx.update(grads, tx.init(grads), grads)
    assert float(optax.tree.norm(clipped)) == pytest.approx(1.0)
    np.testing.assert_allclose(clipped["a"], [0.6], rtol=1e-6)


def test_adaptive_clipping_bounds_the_gradient_of_each_output_by_its_weights():
    """Norms of the two outputs' weights: 5 and (by the floor) 1e-3; of their gradients: 10 and 1. The classifier is left alone."""
    tx = optimizers.make("sgd", momentum=0.0, nesterov=False, weight_decay=0.0, no_weight_decay=[], clip_norm=0.0, agc=0.1)
    params = {"conv": {"kernel": jnp.asarray([3.0, 0, 4, 0]).reshape(1, 1, 2, 2)}, "fc": {"kernel": jnp.ones((2, 2))}}
    grads = {"conv": {"kernel": jnp.asarray([6.0, 0, 8, 1]).reshape(1, 1, 2, 2)}, "fc": {"kernel": jnp.full((2, 2), 50.0)}}
    clipped, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(clipped["conv"]["kernel"].reshape(-1), [0.3, 0, 0.4, 1e-4], rtol=1e-5)
    np.testing.assert_array_equal(clipped["fc"]["kernel"], grads["fc"]["kernel"])
