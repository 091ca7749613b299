"""airbench94's network: what it starts with, against its authors' definitions. Its logits: tests/pretrained/test_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models
from imagenet_jax.models import airbench


def test_the_whitening_kernel_makes_patches_uncorrelated_and_of_unit_size(torch):
    """torch's unfold and eigh as in the authors' init_whitening_conv; then what it is for."""
    images = np.random.default_rng(0).normal(size=(40, 9, 8, 3)) @ np.array([[1, 0.5, 0.2], [0, 1, 0.5], [0, 0, 1]])
    kernel = airbench.whitening(images, epsilon=0.0)
    x = torch.tensor(images).permute(0, 3, 1, 2)
    patches = x.unfold(2, 2, 1).unfold(3, 2, 1).transpose(1, 3).reshape(-1, 3, 2, 2)
    flat = patches.reshape(len(patches), -1)
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    theirs = (vectors.T.reshape(12, 3, 2, 2).flip(0) / values.flip(0).sqrt().view(-1, 1, 1, 1)).permute(2, 3, 1, 0).numpy()
    assert kernel.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])
    signs = np.sign(np.sum(kernel[..., :12] * theirs, (0, 1, 2)))  # an eigenvector's sign is anyone's
    np.testing.assert_allclose(kernel[..., :12], theirs * signs, rtol=1e-4, atol=1e-5)
    y = jax.lax.conv_general_dilated(
        jnp.asarray(images, jnp.float32), jnp.asarray(kernel[..., :12]), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).reshape(-1, 12)
    np.testing.assert_allclose(y.T @ y / len(y), np.eye(12), atol=1e-3)


def test_a_run_begins_with_the_kernel_of_its_images_and_the_identity():
    model = models.create("airbench94", num_classes=10, widths=(32, 40, 40))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    images = np.random.default_rng(1).normal(size=(10, 32, 32, 3))
    begun = model.begin(variables, images)
    np.testing.assert_array_equal(begun["params"]["whiten"]["kernel"], airbench.whitening(images))
    x = jax.random.normal(jax.random.key(2), (2, 8, 8, 24))
    kernel = variables["params"]["group1"]["conv1"]["kernel"]
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(y[..., :24], x, rtol=1e-6)
    assert 0 < np.abs(kernel[..., 24:]).max() <= 1 / np.sqrt(9 * 24)


@pytest.mark.slow
def test_biases_of_norms_learn_64_times_as_fast_and_decay_like_the_rest():
    """The gradient of a bias that is 8 times its parameter is 8 times as large, and so is what a step of it does."""
    model = models.create("airbench94", num_classes=10, widths=(8, 8, 8))
    plain = model.clone(bias_gain=1.0)
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(1), images)

    def moved(model):
        def loss(params):
            logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.sum(logits[:, 0])

        return model.bias_gain * jax.jit(jax.grad(loss))(variables["params"])["group2"]["norm1_shift"]["bias"]

    np.testing.assert_allclose(moved(model), 64 * moved(plain), rtol=1e-3, atol=1e-6)
