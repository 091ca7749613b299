"""The training step's promises: a bad batch leaves no trace, the loss is the paper's, padding counts nowhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import build, tree
from imagenet_jax import step as steps
from imagenet_jax.ops import losses
from imagenet_jax.ops.images import normalize
from imagenet_jax.ops.losses import cross_entropy
from imagenet_jax.optim import averages, schedules

CONFIG = {
    "model": {"name": "resnet8", "dtype": "float32", "param_dtype": "float32", "settings": {}},
    "image_size": 16,
    "bn_group": 0,
    "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    "weight_decay": 1e-3,
    "no_weight_decay": [],
    "clip_norm": 0.0,
    "agc": 0.0,
    "ema_decay": 0.9,
    "swa_start": 0.0,
    "lookahead": 0.0,
    "schedule_free": 0.0,
    "frozen": [],
    "bn_frozen": False,
    "layer_decay": 1.0,
}
VIEW = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


@pytest.fixture(scope="module")
def parts():
    model = build.model(CONFIG, 5)
    state = jax.jit(build.state_init(model, CONFIG))(jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (8, 16, 16, 3), np.uint8), "label": rng.integers(0, 5, 8).astype(np.int32)}
    return model, state, batch


def make(model, rate=0.1, **settings):
    schedule = schedules.make("constant", peak=rate, total_steps=10)
    return jax.jit(steps.make_train_step(model, build.optimizer(CONFIG), schedule, average=averages.ema(0.9), **VIEW, **settings))


def test_a_step_changes_every_part_of_the_state(parts):
    model, state, batch = parts
    new, sums = make(model)(state, batch)
    assert int(new.step) == 1
    assert int(sums["nonfinite"]) == 0
    same = [path for (path, a), (_, b) in zip(tree.paths(state), tree.paths(new), strict=True) if np.array_equal(a, b)]
    assert not same


def test_no_backward_pass_is_computed_below_the_lowest_trained_layer(parts):
    model, state, batch = parts

    def flops(frozen):
        return make(model, frozen=frozen).lower(state, batch).cost_analysis()["flops"]

    forward = jax.jit(lambda v, x: model.apply(v, x)).lower(state.variables(), np.zeros((8, 16, 16, 3), np.float32))
    assert flops(["^(?!fc)"]) < 1.2 * forward.cost_analysis()["flops"]
    assert flops([]) > 2.4 * forward.cost_analysis()["flops"]


@pytest.mark.parametrize("poison", ["parameters", "rate"])
def test_a_nonfinite_loss_or_gradient_leaves_the_state_as_it_was(parts, poison):
    """Everything but the position in the data: parameters, BN statistics, momentum, averages."""
    model, state, batch = parts
    train_step = make(model)
    state, _ = train_step(state, batch)
    if poison == "parameters":  # an infinite weight makes the loss NaN
        kernel = state.params["fc"]["kernel"].at[0, 0].set(jnp.inf)
        state = state.replace(params={**state.params, "fc": {**state.params["fc"], "kernel": kernel}})
    else:  # a finite loss with an overflowing gradient
        scaled = jax.tree.map(lambda x: x, state.params)
        scaled["fc"] = {**scaled["fc"], "kernel": scaled["fc"]["kernel"] * 1e38}
        state = state.replace(params=scaled)
    new, sums = train_step(state, batch)
    assert int(sums["nonfinite"]) == 1
    assert int(new.step) == int(state.step) + 1
    for (path, a), (_, b) in zip(tree.paths(state), tree.paths(new.replace(step=state.step)), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


MIXED = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "mix_probability": 1.0, "mix_switch": 0.5}


def test_without_mixing_a_step_draws_nothing(parts):
    model, state, batch = parts
    assert build.mixing({**MIXED, "mixup_alpha": 0.0, "cutmix_alpha": 0.0}) is None
    plain, mixed = (make(model, mixing=m).lower(state, batch).as_text() for m in (None, build.mixing(MIXED)))
    for operation in ("threefry", "dims = [0] : tensor<8x16x16x3xui8>"):
        assert operation in mixed
        assert operation not in plain


def test_a_step_mixes_as_seed_and_step_say(parts):
    """Loss and top-1 of the mixed batch, computed here from ops/mix.py; `seed` and the step decide."""
    model, state, batch = parts
    train_step, losses = make(model, mixing=build.mixing(MIXED), label_smoothing=0.1, seed=3), set()

    @jax.jit
    def expected(state):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), state.step), steps.MIXING)
        targets = jax.nn.one_hot(batch["label"], 5) * 0.9 + 0.1 / 5
        images, targets = build.mixing(MIXED)(key, jnp.asarray(batch["image"]), targets)
        logits, _ = model.apply(
            state.variables(), normalize(images, **VIEW, dtype=jnp.float32), train=True, mutable=["batch_stats"]
        )
        log_p = jax.nn.log_softmax(logits)
        return -jnp.sum(targets * log_p), jnp.sum(jnp.argmax(logits, -1) == jnp.argmax(targets, -1))

    for step in range(4):
        here = state.replace(step=jnp.asarray(step, jnp.int32))
        new, sums = train_step(here, batch)
        loss, right = expected(here)
        np.testing.assert_allclose(sums["loss"], loss, rtol=1e-5)
        assert int(sums["top1"]) == int(right)
        assert int(sums["nonfinite"]) == 0
        assert int(new.step) == step + 1
        losses.add(float(sums["loss"]))
    assert len(losses) == 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_cross_entropy_against_the_definition(smoothing):
    logits = np.random.default_rng(0).normal(size=(6, 5)) * 3
    labels = np.array([0, 1, 2, 3, 4, 0])
    target = np.eye(5)[labels] * (1 - smoothing) + smoothing / 5
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    got = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), smoothing)
    np.testing.assert_allclose(got, -(target * log_p).sum(1), rtol=1e-5)


def test_normalize_is_the_textbook_formula():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    got = normalize(jnp.asarray(images), mean, std, jnp.float32)
    np.testing.assert_allclose(got, (images / 255 - np.array(mean)) / np.array(std), atol=2e-6)
    assert normalize(jnp.asarray(images), mean, std, jnp.bfloat16).dtype == jnp.bfloat16


def test_padding_counts_nowhere(parts):
    model, state, batch = parts
    eval_step = jax.jit(steps.make_eval_step(model, num_classes=5, **VIEW))
    mask = np.array([True] * 5 + [False] * 3)
    zero = steps.zero_sums(5)
    padded, loss, _ = eval_step(state.variables(), zero, {**batch, "mask": mask})
    batch = {k: v[:5] for k, v in batch.items()}
    exact, exact_loss, _ = eval_step(state.variables(), zero, {**batch, "mask": mask[:5]})
    assert int(padded["images"]) == 5
    for key in exact:
        np.testing.assert_array_equal(padded[key], exact[key])
    assert float(loss) == pytest.approx(float(exact_loss), rel=1e-6)


def test_bfloat16_keeps_state_and_logits_in_float32(parts):
    _, _, batch = parts
    config = {**CONFIG, "model": {**CONFIG["model"], "dtype": "bfloat16"}}
    model = build.model(config, 5)
    state = jax.jit(build.state_init(model, config))(jax.random.key(0))
    new, sums = make(model)(state, batch)
    assert {str(leaf.dtype) for _, leaf in tree.paths(new)} == {"float32", "int32"}
    assert sums["loss"].dtype == jnp.float32
    assert np.isfinite(float(sums["loss"]))


def test_what_is_dropped_depends_on_seed_and_step_alone():
    config = {**CONFIG, "image_size": 32, "model": {**CONFIG["model"], "name": "convnext_tiny"}}
    config["model"]["settings"] = {"depths": [1, 2, 1], "widths": [4, 4, 8], "drop_path": 0.5}
    model = build.model(config, 5)
    state = jax.jit(build.state_init(model, config))(jax.random.key(0))
    state = state.replace(
        params=jax.tree.map(lambda p: p + 0.5, state.params)
    )  # layer scale starts near 0: all branches weigh alike
    rng = np.random.default_rng(0)
    batch = {"image": jnp.asarray(rng.integers(0, 256, (8, 32, 32, 3)), jnp.uint8), "label": jnp.arange(8) % 5}
    step, other = make(model), make(model, seed=1)
    later = state.replace(step=state.step + 1)
    losses = [float(f(s, batch)[1]["loss"]) for f, s in ((step, state), (step, state), (step, later), (other, state))]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_flipping_averages_the_logits_of_an_image_and_its_mirror_image(parts):
    model, state, batch = parts
    batch = {**batch, "mask": np.ones(len(batch["label"]), bool)}
    flipped, flipped_loss, logits = jax.jit(steps.make_eval_step(model, num_classes=5, flip=True, **VIEW))(
        state.variables(), steps.zero_sums(5), batch
    )
    both = [model.apply(state.variables(), normalize(x, VIEW["mean"], VIEW["std"], jnp.float32)) for x in mirrored(batch["image"])]
    mean = (both[0] + both[1]) / 2
    np.testing.assert_allclose(logits, mean, rtol=1e-4, atol=1e-5)
    assert int(flipped["top1"]) == int(jnp.sum(jnp.argmax(mean, -1) == batch["label"]))
    assert float(flipped_loss) == pytest.approx(float(jnp.sum(cross_entropy(mean, batch["label"]))), rel=1e-5)


def test_columns_leave_the_other_classes_out(parts):
    model, state, batch = parts
    batch = {**batch, "label": batch["label"] % 2, "mask": np.ones(len(batch["label"]), bool)}
    sums, _, logits = jax.jit(steps.make_eval_step(model, num_classes=2, columns=(4, 1), **VIEW))(
        state.variables(), steps.zero_sums(2), batch
    )
    every = model.apply(state.variables(), normalize(jnp.asarray(batch["image"]), VIEW["mean"], VIEW["std"], jnp.float32))
    np.testing.assert_allclose(logits, every[:, [4, 1]], rtol=1e-4, atol=1e-5)
    assert int(sums["top1"]) == int(jnp.sum(jnp.argmax(every[:, jnp.array([4, 1])], -1) == batch["label"]))
    told = steps.make_predict_step(model, columns=(4, 1), **VIEW)(state.variables(), jnp.asarray(batch["image"]))
    np.testing.assert_allclose(told, jax.nn.softmax(every[:, jnp.array([4, 1])]), rtol=1e-4, atol=1e-5)


def test_moving_averages_the_logits_of_six_views(parts):
    """airbench's: half the weight to the image, a quarter each to it moved up-left and down-right, each mirrored too."""
    model, state, batch = parts
    batch = {**batch, "mask": np.ones(len(batch["label"]), bool)}
    step = jax.jit(steps.make_eval_step(model, num_classes=5, flip=True, translate=1, **VIEW))
    _, loss, _ = step(state.variables(), steps.zero_sums(5), batch)
    padded = np.pad(batch["image"], ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    mean = jnp.zeros((8, 5))
    for weight, moved in ((0.5, padded[:, 1:17, 1:17]), (0.25, padded[:, :16, :16]), (0.25, padded[:, 2:, 2:])):
        for view in mirrored(moved):
            mean += weight / 2 * model.apply(state.variables(), normalize(view, VIEW["mean"], VIEW["std"], jnp.float32))
    assert float(loss) == pytest.approx(float(jnp.sum(cross_entropy(mean, batch["label"]))), rel=1e-5)


def mirrored(images):
    return jnp.asarray(images), jnp.asarray(images)[:, :, ::-1]


def test_the_loss_of_the_config_is_the_objective(parts):
    """Its sum over a batch, of smoothed targets; sigmoid_mean is a fifth of sigmoid with five classes."""
    model, state, batch = parts
    told = [float(make(model, loss=losses.make(name))(state, batch)[1]["loss"]) for name in ("softmax", "sigmoid", "sigmoid_mean")]
    assert told[1] == pytest.approx(5 * told[2], rel=1e-5)
    assert told[0] != pytest.approx(told[1], rel=1e-2)
