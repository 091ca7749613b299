"""The small ResNets: the paper's counts, shapes, shortcuts, and a gradient step that learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models, tree


@pytest.mark.parametrize(
    ("name", "parameters", "paper_millions"),  # He et al. 2015, table 6, for all but resnet8
    [
        ("resnet8", 75_290, None),
        ("resnet20", 269_722, 0.27),
        ("resnet32", 464_154, 0.46),
        ("resnet44", 658_586, 0.66),
        ("resnet56", 853_018, 0.85),
        ("resnet110", 1_727_962, 1.7),
    ],
)
def test_parameters_are_the_papers(name, parameters, paper_millions):
    assert models.cost(models.create(name, num_classes=10)).parameters == parameters
    if paper_millions:
        assert parameters / 1e6 == pytest.approx(paper_millions, abs=0.03)


def test_multiply_adds_of_resnet20():
    """The usual 41 M (6n + 1 convolutions by hand: 0.44 + 3 stages of about 14.2, 13.0 and 13.0; the dense layer 640)."""
    stem = 32 * 32 * 27 * 16
    stages = sum((16 * 2**s) ** 2 * 9 * (32 // 2**s) ** 2 * 6 for s in range(3))
    halved = sum((16 * 2**s) ** 2 * 9 * (32 // 2**s) ** 2 / 2 for s in (1, 2))  # first convolutions: half the inputs
    cost = models.cost(models.create("resnet20", num_classes=10))
    assert cost.multiply_adds == stem + stages - halved + 640


def test_features_are_maps_at_their_strides_and_the_pooled_vector():
    model = models.create("resnet8", num_classes=4)
    x = jax.random.normal(jax.random.key(1), (2, 32, 24, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    features, logits = jax.jit(lambda v, x: (model.apply(v, x, method="features"), model.apply(v, x)))(variables, x)
    assert {name: f.shape for name, f in features.items()} == {
        "stride1": (2, 32, 24, 16),
        "stride2": (2, 16, 12, 32),
        "stride4": (2, 8, 6, 64),
        "pooled": (2, 64),
    }
    fc = variables["params"]["fc"]
    np.testing.assert_allclose(logits, features["pooled"] @ fc["kernel"] + fc["bias"][None], rtol=1e-5, atol=1e-5)


def test_shortcuts_take_every_second_pixel_and_add_zero_channels():
    """With zero-initialised last BN, what leaves a stage is the shortcut."""
    model = models.create("resnet8", num_classes=4, zero_init_last_bn=True)
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    features = jax.jit(lambda x: model.apply(model.init(jax.random.key(0), x), x, method="features"))(x)
    small = features["stride1"][:, ::2, ::2]
    np.testing.assert_array_equal(features["stride2"], jnp.concatenate([small, jnp.zeros_like(small)], -1))
    assert jnp.any(small)


def test_names_are_stable():
    variables = jax.eval_shape(lambda: models.create("resnet8", num_classes=4).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    block = ["bn1/bias", "bn1/scale", "bn2/bias", "bn2/scale", "conv1/kernel", "conv2/kernel"]
    assert sorted(path for path, _ in tree.paths(variables["params"])) == [
        *("bn1/bias", "bn1/scale", "conv1/kernel", "fc/bias", "fc/kernel"),
        *(f"layer{s}_0/{p}" for s in (1, 2, 3) for p in block),
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_steps_lower_the_loss(dtype):
    model = models.create("resnet8", num_classes=2, dtype=dtype, bn_group=8)
    x = jax.random.normal(jax.random.key(1), (16, 8, 8, 3))
    y = jax.nn.one_hot(jnp.arange(16) % 2, 2)

    @jax.jit
    def step(variables):
        def loss(params):
            logits, updated = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            assert logits.dtype == jnp.float32
            return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), -1)), updated

        (value, updated), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return {**updated, "params": jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)}, value

    variables = jax.jit(model.init)(jax.random.key(0), x)
    losses = []
    for _ in range(10):
        variables, value = step(variables)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
