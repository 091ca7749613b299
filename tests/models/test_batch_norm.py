"""Batch normalisation by its definition, its conventions and its communication."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import sharding
from imagenet_jax.errors import UserError
from imagenet_jax.models import batch_norm

N, SIDE, C = 16, 3, 5


@pytest.fixture
def example():
    """x (16, 3, 3, 5) with different statistics for each example, and variables that are not the initial ones."""
    rng = np.random.default_rng(0)
    x = rng.normal(rng.normal(size=(N, 1, 1, C)), rng.uniform(0.5, 2, size=(N, 1, 1, C)), size=(N, SIDE, SIDE, C))
    variables = {
        "params": {"scale": rng.normal(size=C), "bias": rng.normal(size=C)},
        "batch_stats": {"mean": rng.normal(size=C), "var": rng.uniform(0.5, 2, size=C)},
    }
    return x, variables


def by_definition(x, variables, group):
    """(y, new mean, new var) in numpy, a group at a time."""
    params, stats = variables["params"], variables["batch_stats"]
    y, means, variances = [], [], []
    for part in x.reshape(-1, group or len(x), *x.shape[1:]):
        mean, var = part.mean((0, 1, 2)), part.var((0, 1, 2))
        y.append((part - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"])
        means.append(mean)
        variances.append(part.var((0, 1, 2), ddof=1))
    return (
        np.concatenate(y),
        0.9 * stats["mean"] + 0.1 * np.mean(means, 0),
        0.9 * stats["var"] + 0.1 * np.mean(variances, 0),
    )


@pytest.mark.parametrize("group", [0, 1, 4, 16])
def test_training_normalises_each_group_and_keeps_the_mean_of_their_unbiased_variances(x64, example, group):
    x, variables = example
    norm = batch_norm.BatchNorm(group=group, train=True, dtype=jnp.float64, param_dtype=jnp.float64)
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    expected, mean, var = by_definition(x, variables, group)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], mean, atol=1e-13)
    np.testing.assert_allclose(updated["batch_stats"]["var"], var, atol=1e-13)


def test_evaluation_uses_the_running_statistics_and_leaves_them(x64, example):
    x, variables = example
    norm = batch_norm.BatchNorm(group=4, dtype=jnp.float64, param_dtype=jnp.float64)
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    stats, params = variables["batch_stats"], variables["params"]
    expected = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-13)
    np.testing.assert_array_equal(updated["batch_stats"]["mean"], stats["mean"])
    np.testing.assert_array_equal(updated["batch_stats"]["var"], stats["var"])


@pytest.mark.parametrize("group", [0, 4])
def test_gradients_are_those_of_the_definition(x64, example, group):
    """The arithmetic relative to the running mean must leave no trace in any gradient."""
    x, variables = example
    weights = np.random.default_rng(1).normal(size=x.shape)
    stats = variables["batch_stats"]

    def ours(params, x):
        norm = batch_norm.BatchNorm(group=group, train=True, dtype=jnp.float64, param_dtype=jnp.float64)
        y, _ = norm.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
        return jnp.sum(weights * y)

    def plain(params, x):
        parts = x.reshape(-1, group or N, SIDE, SIDE, C)
        mean, var = parts.mean((1, 2, 3), keepdims=True), parts.var((1, 2, 3), keepdims=True)
        scale, bias = (params[k].reshape(1, 1, 1, 1, C) for k in ("scale", "bias"))
        y = (parts - mean) / jnp.sqrt(var + 1e-5) * scale + bias
        return jnp.sum(weights * y.reshape(x.shape))

    params = jax.tree.map(jnp.asarray, variables["params"])
    ours_grads, plain_grads = (jax.grad(f, argnums=(0, 1))(params, jnp.asarray(x)) for f in (ours, plain))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-11), ours_grads, plain_grads)


def test_float32_statistics_do_not_cancel_where_the_mean_is_large():
    """E[x^2] - E[x]^2 at mean 1000 and deviation 0.1 has no correct digit in float32; relative to the running mean it has."""
    x = np.random.default_rng(0).normal(1000, 0.1, size=(64, 4, 4, 1)).astype(np.float32)
    variables = batch_norm.BatchNorm().init(jax.random.key(0), x)
    variables["batch_stats"]["mean"] += 1000
    y, _ = batch_norm.BatchNorm(train=True, epsilon=0.0).apply(variables, x, mutable=["batch_stats"])
    exact = x.astype(np.float64)
    np.testing.assert_allclose(y, (exact - exact.mean()) / exact.std(), atol=2e-3)


@pytest.mark.parametrize("group", [0, 2, 8, 16])
def test_the_result_does_not_depend_on_the_device_count(x64, group):
    x = np.random.default_rng(0).normal(size=(32, 4, 4, C))
    norm = batch_norm.BatchNorm(group=group, train=True, dtype=jnp.float64, param_dtype=jnp.float64)
    variables = norm.init(jax.random.key(0), x)

    def run(variables, x):
        def loss(params):
            y, updated = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), (y, updated)

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    results = []
    for devices in (1, 2, 8):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        placed = jax.device_put(x, sharding.batched(mesh))
        results.append(jax.device_get(jax.jit(run)(sharding.replicate(mesh, variables), placed)))
    for other in results[1:]:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), results[0], other)


def collectives(function, variables, x):
    """How many collective operations XLA compiles `function` into, with x split over eight devices."""
    mesh = sharding.make_mesh(jax.devices()[:8])
    jitted = jax.jit(function, in_shardings=(sharding.replicated(mesh), sharding.batched(mesh)))
    hlo = jitted.lower(variables, x).compile().as_text()
    return len(re.findall(r" (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", hlo))


@pytest.mark.parametrize(("group", "expected"), [(1, 0), (4, 0), (8, 0), (0, 1)])
def test_groups_within_a_device_need_no_communication_forward(group, expected):
    """64 examples on 8 devices. Global statistics do need it, which shows that the count counts."""
    norm = batch_norm.BatchNorm(group=group, train=True)
    x = jnp.ones((64, 4, 4, C))
    variables = norm.init(jax.random.key(0), x)
    forward = collectives(lambda v, x: norm.apply(v, x, mutable=["batch_stats"])[0], variables, x)
    assert forward == 0 if expected == 0 else forward >= expected


class Stack(nn.Module):
    """Four layers, each with its BN: compiles in a fraction of the time of a ResNet."""

    group: int

    @nn.compact
    def __call__(self, x):
        for _ in range(4):
            x = nn.relu(batch_norm.BatchNorm(group=self.group, train=True)(nn.Dense(C)(x)))
        return x


def test_a_grouped_model_communicates_a_constant_number_of_times_a_step():
    """The gradients and the running statistics, whatever the depth; global statistics cost every layer two all-reduces."""
    counts = {}
    for group in (0, 2):
        model = Stack(group)
        x = jnp.ones((16, 8, 8, C))
        variables = model.init(jax.random.key(0), x)

        def gradient(variables, x, model=model):
            def loss(params):
                y, updated = model.apply({**variables, "params": params}, x, mutable=["batch_stats"])
                return jnp.mean(jnp.square(y)), updated

            return jax.value_and_grad(loss, has_aux=True)(variables["params"])

        counts[group] = collectives(gradient, variables, x)
    assert counts[2] <= 2, counts
    assert counts[0] >= 2 * 4, counts


def test_bfloat16_goes_in_and_out_while_statistics_stay_float32():
    x = jnp.full((512, 4, 4, 2), 1.0, jnp.bfloat16).at[::2].add(1 / 64)
    norm = batch_norm.BatchNorm(train=True, dtype=jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x)
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated))} == {jnp.dtype("float32")}
    # bfloat16 has 8 bits: summed in it, 8192 values would stop growing at 256.
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * (1 + 1 / 128), rtol=1e-6)


def test_a_group_that_does_not_divide_the_batch_is_the_users_mistake():
    with pytest.raises(UserError, match=r"bn_group=6 does not divide the batch of 16 \(16 = 2 x 6 \+ 4\)"):
        batch_norm.BatchNorm(group=6, train=True).init(jax.random.key(0), jnp.ones((16, 2)))


def test_a_single_value_has_no_variance():
    with pytest.raises(UserError, match="single value"):
        batch_norm.BatchNorm(group=1, train=True).init(jax.random.key(0), jnp.ones((16, 1, 1, 2)))
