"""Sharpness-aware, schedule-free and taught steps against references written by hand, in float64; an average's BN statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagenet_jax import build, distill, moments, sharding, tree
from imagenet_jax import config as configs
from imagenet_jax import step as steps
from imagenet_jax.ops.images import normalize
from imagenet_jax.plan import Plan

CONFIG = configs.plain(configs.resolve(configs.default())) | {
    "model": {"name": "resnet8", "dtype": "float64", "param_dtype": "float64", "settings": {}},
    "image_size": 12, "mean": [0.5] * 3, "std": [0.25] * 3, "batch_size": 8, "epochs": 100.0, "learning_rate": 0.05,
    "lr_scaling": "none", "schedule": "constant", "warmup_epochs": 2.0, "weight_decay": 1e-2, "no_weight_decay": [],
}  # fmt: skip
STEPS = 4


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        yield {"image": rng.integers(0, 256, (8, 12, 12, 3), np.uint8), "label": rng.integers(0, 5, 8).astype(np.int32)}


def trained(**changes):
    """Our state after STEPS steps, the state at the beginning, the learning rates, and the gradient of the loss by definition."""
    c = {**CONFIG, **changes}
    model, plan = build.model(c, 5), Plan(c, 8)
    rate, _ = build.schedule(c, plan)
    step = jax.jit(
        steps.make_train_step(
            model, build.optimizer(c), rate, mean=c["mean"], std=c["std"], average=build.average(c, plan),
            schedule_free=c["schedule_free"], sam_rho=c["sam_rho"],
        )
    )  # fmt: skip
    begin = state = jax.jit(build.state_init(model, c))(jax.random.key(0))
    for batch in batches():
        state, sums = step(state, batch)
        assert int(sums["nonfinite"]) == 0

    @jax.jit
    def gradient(params, stats, batch):
        def loss(params):
            images = normalize(jnp.asarray(batch["image"]), c["mean"], c["std"], jnp.float64)
            logits, new = model.apply({"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean(), new["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    return state, begin, [float(rate(i)) for i in range(STEPS)], gradient


def assert_same(ours, theirs):
    for (path, a), (_, b) in zip(tree.paths(ours), tree.paths(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9, err_msg=path)


def test_a_sharpness_aware_step_is_foret_et_als(x64):
    """Algorithm 1 with SGD (torch's momentum): up the gradient by rho, then down from where it was by the gradient found there."""
    ours, begin, rates, gradient = trained(sam_rho=0.5, optimizer={"name": "sgd", "momentum": 0.9, "nesterov": False})
    w, stats, m = begin.params, begin.batch_stats, jax.tree.map(jnp.zeros_like, begin.params)
    for rate, batch in zip(rates, batches(), strict=True):
        g, new_stats = gradient(w, stats, batch)
        length = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(g)))
        g, _ = gradient(jax.tree.map(lambda w, g, length=length: w + 0.5 * g / length, w, g), stats, batch)
        m = jax.tree.map(lambda m, g, w: 0.9 * m + g + 1e-2 * w, m, g, w)
        w, stats = jax.tree.map(lambda w, m, rate=rate: w - rate * m, w, m), new_stats
    assert_same((ours.params, ours.batch_stats), (w, stats))
    plain, *_ = trained(optimizer={"name": "sgd", "momentum": 0.9, "nesterov": False})
    assert np.abs(plain.params["fc"]["kernel"] - w["fc"]["kernel"]).max() > 1e-4  # the test can see rho


def test_a_nonfinite_gradient_next_door_leaves_the_state_as_it_was(x64):
    c = {**CONFIG, "sam_rho": 1e200}  # finite at the parameters, not there
    model, plan = build.model(c, 5), Plan(c, 8)
    state = jax.jit(build.state_init(model, c))(jax.random.key(0))
    rate, _ = build.schedule(c, plan)
    step = steps.make_train_step(model, build.optimizer(c), rate, mean=c["mean"], std=c["std"], sam_rho=c["sam_rho"])
    new, sums = jax.jit(step)(state, next(batches()))
    assert int(sums["nonfinite"]) == 1
    assert np.isfinite(float(sums["loss"]))
    assert_same((new.params, new.batch_stats, new.opt_state), (state.params, state.batch_stats, state.opt_state))


ADAM = {"name": "adamw", "b1": 0.0, "b2": 0.9, "eps": 1e-3}


def test_schedule_free_learning_is_defazio_et_als(x64):
    """Algorithm 1 with Adam's scaling: y, z and x written out, and the decay at y."""
    ours, begin, rates, gradient = trained(schedule_free=0.9, optimizer=ADAM)
    z = x = begin.params
    stats, v, total = begin.batch_stats, jax.tree.map(jnp.zeros_like, begin.params), 0.0
    for t, (rate, batch) in enumerate(zip(rates, batches(), strict=True), 1):
        y = jax.tree.map(lambda z, x: 0.1 * z + 0.9 * x, z, x)
        g, stats = gradient(y, stats, batch)
        v = jax.tree.map(lambda v, g: 0.9 * v + 0.1 * g**2, v, g)
        direction = jax.tree.map(lambda g, v, y, t=t: g / (np.sqrt(v / (1 - 0.9**t)) + 1e-3) + 1e-2 * y, g, v, y)
        z = jax.tree.map(lambda z, d, rate=rate: z - rate * d, z, direction)
        total += rate**2
        c = rate**2 / total
        x = jax.tree.map(lambda x, z, c=c: (1 - c) * x + c * z, x, z)
    assert_same((ours.params, ours.variables("ema")["params"]), (z, x))
    assert float(ours.ema["weight"]) == pytest.approx(total)


@pytest.mark.slow
def test_schedule_free_learning_is_optaxs(x64):
    """optax counts from step 1, so that its rate of step i is ours of i - 1."""
    ours, begin, rates, gradient = trained(schedule_free=0.9, optimizer=ADAM)
    rate_of = lambda count: jnp.asarray(rates)[count - 1]  # noqa: E731
    direction = optax.chain(optax.scale_by_adam(0.0, 0.9, 1e-3), optax.add_decayed_weights(1e-2))
    base = optax.chain(direction, optax.scale_by_schedule(lambda count: -rate_of(count + 1)))
    theirs = optax.contrib.schedule_free(base, rate_of, b1=0.9)
    y, stats, state = begin.params, begin.batch_stats, theirs.init(begin.params)
    for batch in batches():
        g, stats = gradient(y, stats, batch)
        updates, state = theirs.update(g, state, y)
        y = optax.apply_updates(y, updates)
    assert_same(ours.variables("ema")["params"], optax.contrib.schedule_free_eval_params(state, y))


def test_a_taught_step_asks_the_teacher_about_the_same_pixels_in_its_own_preprocessing(x64):
    """The loss by hand: 0.3 of the labels' and 0.7 of the divergence from the teacher, as in evaluation, with a mean of its own."""
    c = {**CONFIG, "distill": {"weights": "", "kind": "soft", "alpha": 0.7, "temperature": 2.0}}
    model, plan, batch = build.model(c, 5), Plan(c, 8), next(batches())
    rate, _ = build.schedule(c, plan)
    state, teacher = (jax.jit(build.state_init(model, c))(jax.random.key(i)) for i in (0, 1))
    taught = distill.objective(c, build.loss(c, ()), model, (0.4, 0.4, 0.4), (0.1, 0.2, 0.3))
    step = steps.make_train_step(model, build.optimizer(c), rate, mean=c["mean"], std=c["std"], taught=taught)
    new, sums = jax.jit(step)(state, batch, teacher.variables())
    images = jnp.asarray(batch["image"]) / 255
    theirs = model.apply(teacher.variables(), (images - 0.4) / jnp.asarray([0.1, 0.2, 0.3]).reshape(1, 1, 1, 3))
    ours, _ = model.apply(state.variables(), (images - 0.5) / 0.25, train=True, mutable=["batch_stats"])
    labels = optax.softmax_cross_entropy_with_integer_labels(ours, batch["label"]).sum()
    divergence = 4 * optax.kl_divergence(jax.nn.log_softmax(ours / 2), jax.nn.softmax(theirs / 2)).sum()
    assert float(sums["loss"]) == pytest.approx(float(0.3 * labels + 0.7 * divergence), rel=1e-6)
    assert {path for path, _ in tree.paths(new)} == {path for path, _ in tree.paths(state)}  # nothing of the teacher


def test_bn_statistics_of_an_average_are_the_mean_over_the_last_batches(x64, monkeypatch):
    """torch.optim.swa_utils.update_bn: the cumulative mean of what running statistics are made of; here of steps 2 and 3 of 4."""
    state, *_ = trained(swa_start=25.0, bn_group=4)
    c = {**CONFIG, "swa_start": 25.0, "bn_group": 4}
    monkeypatch.setattr(moments, "IMAGES", 16)
    mesh, model, asked = sharding.make_mesh(jax.devices()[:2]), build.model(c, 5), []

    def views(start, stop):
        asked.append((start, stop))
        return list(batches())[start:stop]

    settled = moments.estimator(model, c, mesh, build.abstract_state(model, c, mesh), views)(state)
    assert asked == [(2, 4)]
    variables, found = state.variables("ema"), []
    for batch in views(2, 4):
        images = normalize(jnp.asarray(batch["image"]), c["mean"], c["std"], jnp.float64)
        _, new = model.apply(variables, images, train=True, mutable=["batch_stats"])
        found.append(jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, new["batch_stats"], variables["batch_stats"]))
    assert_same(settled.ema["batch_stats"], jax.tree.map(lambda a, b: (a + b) / 2, *found))
    kept = [(s.params, s.batch_stats, s.ema["params"]) for s in (settled, state)]
    assert_same(*kept)
    exponential = {**c, "swa_start": 0.0, "ema_decay": 0.9}
    assert moments.estimator(model, exponential, mesh, build.abstract_state(model, exponential, mesh), views)(state) is state
