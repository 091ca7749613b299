"""MLP-Mixer: logits of a few lines of torch with our weights, and one image size for one set of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models, tree
from imagenet_jax.errors import UserError

IMAGES = jax.random.normal(jax.random.key(1), (2, 64, 32, 3))


def tiny(**settings):
    return models.create("mixer_s_16", num_classes=7, width=32, depth=2, **settings)


def test_logits_are_those_of_the_paper_in_torch(torch, torch_state, drawn):
    """Equation 1: tokens mix in the transposed map, channels in the map, each with a shortcut around its norm."""
    functional = torch.nn.functional
    model = tiny()
    variables = drawn(model, IMAGES)
    state = torch_state(variables["params"])

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x, name):
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def mlp(x, name):
        return linear(functional.gelu(linear(x, f"{name}.fc1")), f"{name}.fc2")

    images = torch.tensor(np.asarray(IMAGES)).permute(0, 3, 1, 2)
    x = functional.conv2d(images, state["stem.proj.weight"], state["stem.proj.bias"], 16).flatten(2).transpose(1, 2)
    for name in ("blocks.0", "blocks.1"):
        x = x + mlp(norm(x, f"{name}.norm1").transpose(1, 2), f"{name}.mlp_tokens").transpose(1, 2)
        x = x + mlp(norm(x, f"{name}.norm2"), f"{name}.mlp_channels")
    expected = linear(norm(x, "norm").mean(1), "head").numpy()
    assert np.abs(expected).max() > 0.5
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)(variables, IMAGES)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_names_are_timms():
    variables = jax.eval_shape(lambda: tiny().init(jax.random.key(0), IMAGES))
    layers = [f"{mlp}/{layer}" for mlp in ("mlp_channels", "mlp_tokens") for layer in ("fc1", "fc2")]
    block = [f"{layer}/{p}" for layer in layers for p in ("bias", "kernel")]
    block += [f"{norm}/{p}" for norm in ("norm1", "norm2") for p in ("bias", "scale")]
    ends = ["head/bias", "head/kernel", "norm/bias", "norm/scale", "stem/proj/bias", "stem/proj/kernel"]
    assert {path for path, _ in tree.paths(variables["params"])} == {*ends, *(f"blocks_{i}/{p}" for i in (0, 1) for p in block)}


def test_weights_belong_to_one_image_size():
    variables = jax.eval_shape(lambda: tiny().init(jax.random.key(0), IMAGES))
    with pytest.raises(UserError, match=r"mix the 8 patches .* 64 x 64 pixels have 16"):
        jax.eval_shape(tiny().apply, variables, jnp.zeros((2, 64, 64, 3)))


def test_drop_path_draws_in_training_only(drawn):
    model = tiny(drop_path=0.5)
    variables = drawn(model, IMAGES)

    @jax.jit
    def outputs(variables):
        draws = [model.apply(variables, IMAGES, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1)]
        return *draws, model.apply(variables, IMAGES), tiny().apply(variables, IMAGES, train=True)  # without a rate: no rng

    one, two, evaluated, expected = outputs(variables)
    np.testing.assert_allclose(evaluated, expected, atol=1e-5)
    assert min(jnp.max(jnp.abs(one - two)), jnp.max(jnp.abs(one - expected))) > 1e-2
