"""Schedules, masks and optimizers against hand-computed values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.optim import masks, optimizers, schedules


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


# Three steps of each optimizer against torch, or against its formula written out; gradients differ from step to step.
GRADS = np.random.default_rng(0).normal(size=(3, 4, 3))
START = np.random.default_rng(1).normal(size=(4, 3))
RATE, DECAY = 0.1, 0.05


def three_steps(name, **settings):
    """The kernel after three steps, in float64."""
    tx = optimizers.make(name, weight_decay=DECAY, no_weight_decay=["bias"], clip_norm=0.0, **settings)
    params = {"layer": {"kernel": jnp.asarray(START)}}
    state = tx.init(params)
    for grad in GRADS:
        direction, state = tx.update({"layer": {"kernel": jnp.asarray(grad)}}, state, params)
        params = jax.tree.map(lambda p, d: p - RATE * d, params, direction)
    return np.asarray(params["layer"]["kernel"])


@pytest.mark.parametrize(
    ("name", "settings", "theirs", "their_settings"),
    [
        ("sgd", {"momentum": 0.8, "nesterov": False}, "SGD", {"momentum": 0.8}),
        ("sgd", {"momentum": 0.8, "nesterov": True}, "SGD", {"momentum": 0.8, "nesterov": True}),
        ("adam", {"b1": 0.8, "b2": 0.9, "eps": 1e-3}, "Adam", {"betas": (0.8, 0.9), "eps": 1e-3}),
        ("adamw", {"b1": 0.8, "b2": 0.9, "eps": 1e-3}, "AdamW", {"betas": (0.8, 0.9), "eps": 1e-3}),
        (
            "rmsprop", {"rho": 0.8, "eps": 0.03, "momentum": 0.7, "initial": 0.0, "eps_in_root": False},
            "RMSprop", {"alpha": 0.8, "eps": 0.03, "momentum": 0.7},
        ),
    ],
)  # fmt: skip
def test_steps_are_torchs(torch, x64, name, settings, theirs, their_settings):
    parameter = torch.nn.Parameter(torch.tensor(START))
    optimizer = getattr(torch.optim, theirs)([parameter], lr=RATE, weight_decay=DECAY, **their_settings)
    for grad in GRADS:
        parameter.grad = torch.tensor(grad)
        optimizer.step()
    np.testing.assert_allclose(three_steps(name, **settings), parameter.detach().numpy(), rtol=1e-9)


def test_sgdw_decays_past_the_momentum(x64):
    w, m = START, 0
    for g in GRADS:
        m = g + 0.9 * m
        w = w - RATE * (m + DECAY * w)
    np.testing.assert_allclose(three_steps("sgdw"), w, rtol=1e-9)


def test_rmsprop_is_tensorflows_by_default(x64):
    """Epsilon inside the root, the mean square from 1 (tf.compat.v1.train.RMSPropOptimizer)."""
    w, s, m = START, 1.0, 0
    for g in GRADS:
        g = g + DECAY * w
        s = 0.9 * s + 0.1 * g**2
        m = 0.9 * m + g / np.sqrt(s + 1e-3)
        w = w - RATE * m
    np.testing.assert_allclose(three_steps("rmsprop"), w, rtol=1e-9)


def test_nadamw_looks_one_step_ahead(x64):
    w, m, v = START, 0, 0
    for t, g in enumerate(GRADS, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        ahead = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
        w = w - RATE * (ahead / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + DECAY * w)
    np.testing.assert_allclose(three_steps("nadamw"), w, rtol=1e-9)


def test_lamb_takes_steps_of_the_length_of_the_weights(x64):
    w, m, v = START, 0, 0
    for t, g in enumerate(GRADS, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + DECAY * w
        w = w - RATE * np.linalg.norm(w) / np.linalg.norm(u) * u
    np.testing.assert_allclose(three_steps("lamb"), w, rtol=1e-9)


def test_lars_scales_the_gradient_before_the_momentum(x64):
    w, m = START, 0
    for g in GRADS:
        g = g + DECAY * w
        m = 0.9 * m + 0.01 * np.linalg.norm(w) / np.linalg.norm(g) * g
        w = w - RATE * m
    np.testing.assert_allclose(three_steps("lars", trust=0.01), w, rtol=1e-9)


def test_lion_goes_by_signs(x64):
    w, m = START, 0
    for g in GRADS:
        w, m = w - RATE * (np.sign(0.9 * m + 0.1 * g) + DECAY * w), 0.99 * m + 0.01 * g
    np.testing.assert_allclose(three_steps("lion"), w, rtol=1e-9)


def test_muon_makes_kernels_orthogonal_and_leaves_the_rest_to_adam():
    """A convolution from 2 x 2 x 3 inputs to 4 outputs; singular values after five steps lie in 0.7 .. 1.2 of a common one."""
    draw = np.random.default_rng(2).normal
    params = {name: {"kernel": jnp.asarray(draw(size=s), jnp.float32)} for name, s in (("conv", (2, 2, 3, 4)), ("fc", (6, 5)))}
    tx = optimizers.make("muon", weight_decay=0.0, no_weight_decay=[], clip_norm=0.0)
    direction, _ = tx.update(params, tx.init(params), params)
    singular = np.linalg.svd(np.asarray(direction["conv"]["kernel"]).reshape(12, 4), compute_uv=False)
    np.testing.assert_allclose(singular / (0.2 * np.sqrt(12)), 1, atol=0.35)
    assert np.sum(direction["conv"]["kernel"] * params["conv"]["kernel"]) > 0  # downhill, once the step has negated it
    np.testing.assert_allclose(np.abs(direction["fc"]["kernel"]), 0.09 / 0.19 + 1, rtol=1e-5)  # its first step, looking ahead


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_what_does_not_decay_is_not_scaled_to_its_norm(name):
    params = {"layer": {"bias": jnp.asarray([30.0, 40.0])}}
    tx = optimizers.make(name, weight_decay=0.1, no_weight_decay=["bias"], clip_norm=0.0)
    direction, _ = tx.update({"layer": {"bias": jnp.asarray([1.0, 1.0])}}, tx.init(params), params)
    np.testing.assert_allclose(direction["layer"]["bias"], [1, 1], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adamv", {}, "No optimizer 'adamv'. Did you mean 'adam"),
        ("adamw", {"beta1": 0.9}, "No setting of optimizer 'adamw' 'beta1'"),
        ("adamw", {"momentum": 0.9}, "No setting of optimizer 'adamw' 'momentum'. Known: b1, b2, eps"),
        ("sgd", {"momentum": True}, "momentum=True is no such setting of optimizer 'sgd'; wanted: something like the default, 0.9"),
        ("sgd", {"nesterov": "no"}, "nesterov='no' is no such setting of optimizer 'sgd'; wanted: True or False"),
        ("sgd", {"momentum": 1.5}, "optimizer.momentum=1.5 must be at least 0, and less than 1"),
        ("adam", {"eps": -1e-8}, "optimizer.eps=-1e-08 must be at least 0"),
        ("adam", {"eps": float("inf")}, "eps=inf is no such setting"),
    ],
)
def test_settings_are_checked(name, settings, message):
    with pytest.raises(UserError, match=message):
        optimizers.make(name, weight_decay=0.0, no_weight_decay=[], clip_norm=0.0, **settings)


# 100 steps with 20 of warm-up, but for piecewise: (settings, {step: share of the peak}).
SCHEDULES = {
    "cosine": ({"end": 0.05}, {20: 1, 60: 0.55, 100: 0.1}),  # the end is a rate, half the peak's share at a peak of 0.5
    "linear": ({}, {20: 1, 60: 0.5, 80: 0.25, 100: 0}),
    "poly": ({"power": 2.0, "end": 0.05}, {20: 1, 60: 0.1 + 0.9 * 0.25, 100: 0.1}),
    "exponential": ({"decay_factor": 0.5, "decay_steps": 40.0}, {20: 0.5**0.5, 40: 0.5, 60: 0.5**1.5, 80: 0.25}),
    "staircase": ({"decay_factor": 0.5, "decay_steps": 40.0}, {20: 1, 39: 1, 40: 0.5, 79: 0.5, 80: 0.25}),
    "rsqrt": ({}, {20: 1, 80: 0.5}),
    "constant": ({"cooldown_steps": 10}, {20: 1, 90: 1, 95: 0.5, 100: 0}),
    "piecewise": ({"warmup_steps": 0, "points": ((0, 0.1), (10, 1), (100, 0))}, {0: 0.1, 5: 0.55, 10: 1, 55: 0.5, 100: 0}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_at_hand_computed_steps(name):
    settings, shares = SCHEDULES[name]
    rate = schedules.make(name, **{"peak": 0.5, "total_steps": 100, "warmup_steps": 20, **settings})
    assert [float(rate(s)) for s in shares] == pytest.approx([0.5 * share for share in shares.values()], abs=1e-6)


def test_a_warm_up_may_begin_above_zero():
    rate = schedules.make("constant", peak=1.0, total_steps=100, warmup_steps=10, warmup_start=0.2)
    assert [float(rate(s)) for s in (0, 5, 10)] == pytest.approx([0.2, 0.6, 1.0])


def test_a_staircase_falls_exactly_at_whole_multiples():
    """Float32 quotients of multiples must not fall short of 1, 2, 3, ..."""
    rate = schedules.make("staircase", peak=1.0, total_steps=10**6, decay_factor=0.5, decay_steps=751.0)
    for n in (1, 2, 3, 7, 100):
        assert float(rate(751 * n)) == pytest.approx(0.5**n)
        assert float(rate(751 * n - 1)) == pytest.approx(0.5 ** (n - 1))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rsqrt", {}, "Set --config.warmup_epochs"),
        ("piecewise", {"points": ()}, "schedule=piecewise needs schedule_points"),
        ("piecewise", {"points": ((0, 0), (10, 1), (10, 0))}, "with growing epochs from 0"),
        ("piecewise", {"points": ((0, 0), (50, 1))}, "end after 0.5 times the training"),
        ("piecewise", {"points": ((0, 0), (100, 1)), "warmup_steps": 5}, "Set --config.warmup_epochs=0"),
    ],
)
def test_schedules_that_do_not_fit(name, settings, message):
    with pytest.raises(UserError, match=message):
        schedules.make(name, peak=1.0, total_steps=100, **settings)


@pytest.mark.parametrize(("name", "settings", "key"), [("adamw", {}, "b1=0.9"), ("sgd", {"momentum": 0.5}, "momentum=0.5")])
def test_schedule_free_learning_takes_the_place_of_momentum(name, settings, key):
    with pytest.raises(UserError, match=f"{name} has {key}. Set --config.optimizer"):
        optimizers.without_momentum(name, settings)
    optimizers.without_momentum(name, {**settings, key.partition("=")[0]: 0.0})
