"""Maps of where a model looks: Grad-CAM against the closed form where there is one, and against torch-like loops elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import explain, models


def random_variables(model, size, seed=0):
    variables = model.init(jax.random.key(seed), jnp.zeros((1, size, size, 3)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + rng.normal(0, 0.05, x.shape).astype(x.dtype), variables)


def test_grad_cam_of_mean_and_linear_is_the_class_activation_map():
    """Selvaraju et al., section 3.1: for a network that ends in a mean and a linear layer, Grad-CAM is CAM."""
    model = models.create("resnet8", num_classes=5)
    variables = random_variables(model, 32)
    images = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    out = model.apply(variables, images, False, True, method="forward")
    maps = out[max((n for n in out if n.startswith("stride")), key=lambda n: int(n[6:]))]
    seen = []
    for label in range(5):
        kernel = variables["params"]["fc"]["kernel"][:, label]
        cam = jax.nn.relu(jnp.einsum("nhwc,c->nhw", maps, kernel) / (maps.shape[1] * maps.shape[2]))[0]
        found = explain.grad_cam(model, variables, images, jnp.asarray(label))
        np.testing.assert_allclose(found, cam, rtol=1e-4, atol=1e-6)
        seen.append(float(found.max()))
    assert max(seen) > 0


@pytest.mark.parametrize(("name", "size", "side"), [("efficientnet_lite0", 64, 2), ("mixer_s_16", 224, 14)])
@pytest.mark.slow
def test_every_family_has_a_map_of_its_last_features_and_some_class_is_somewhere(name, size, side):
    """With random weights a class may have no positive gradient anywhere; of eight, some have."""
    model = models.create(name, num_classes=8)
    variables = random_variables(model, size)
    images = jax.random.normal(jax.random.key(1), (1, size, size, 3))
    step = jax.jit(lambda label: explain.grad_cam(model, variables, images, label))
    heats = np.stack([step(label) for label in range(8)])
    assert heats.shape == (8, side, side)
    assert np.isfinite(heats).all()
    assert heats.max() > 0


def test_rollout_is_the_product_of_attentions():
    model = models.create("vit_ti_16", num_classes=3, native_size=32, depth=2)
    variables = random_variables(model, 32)
    images = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    found = explain.rollout(model, variables, images)
    assert found.shape == (2, 2)
    _, kept = model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
    product = np.eye(5)
    for i in range(2):
        qkv = np.asarray(kept["intermediates"][f"blocks_{i}"]["attn"]["qkv"]["__call__"][0])[0].reshape(5, 3, 3, 64)
        scores = np.einsum("qhd,khd->hqk", qkv[:, 0], qkv[:, 1]) / 8
        attention = np.exp(scores - scores.max(-1, keepdims=True))
        attention = (attention / attention.sum(-1, keepdims=True)).mean(0)
        product = (0.5 * attention + 0.5 * np.eye(5)) @ product
    np.testing.assert_allclose(found.reshape(-1), product[0, 1:], rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet8", "vit_ti_16"])
def test_heat_is_between_0_and_1_and_follows_the_label_where_it_can(name):
    settings = {"native_size": 32, "depth": 2} if name.startswith("vit") else {}
    model = models.create(name, num_classes=3, **settings)
    variables = random_variables(model, 32)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    step = jax.jit(explain.make_heat_step(model, mean=(0.5,) * 3, std=(0.25,) * 3))
    heats = [np.asarray(step(variables, image, label)) for label in range(3)]
    assert all(h.min() >= 0 and h.max() <= 1 for h in heats)
    assert any(not np.allclose(heats[0], h) for h in heats[1:]) == (not name.startswith("vit"))
