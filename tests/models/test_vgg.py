"""VGG against torch, with torchvision's names; pooling to 7x7; dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models
from imagenet_jax.models import vgg

SMALL = {"width": 8, "hidden": 32}


def torch_vgg(torch, depths, batch_norm):
    """torchvision's VGG by its description: configuration A or wider, adaptive pooling, three dense layers."""
    nn, convolutions, channels = torch.nn, [], 3
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            width = SMALL["width"] * min(2**stage, 8)
            convolutions.append(nn.Conv2d(channels, width, 3, padding=1))
            convolutions += [nn.BatchNorm2d(width)] if batch_norm else []
            convolutions.append(nn.ReLU())
            channels = width
        convolutions.append(nn.MaxPool2d(2))
    hidden = SMALL["hidden"]
    dense = [nn.Linear(channels * 49, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()]
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*convolutions))
    net.add_module("avgpool", nn.AdaptiveAvgPool2d(7))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Sequential(*dense, nn.Linear(hidden, 5)))
    return net.eval()


@pytest.mark.parametrize(("name", "side"), [("vgg11", 64), ("vgg16_bn", 96)])
def test_logits_are_torchs(torch, torch_state, drawn, name, side):
    model = models.create(name, num_classes=5, **SMALL)
    images = np.random.default_rng(1).normal(size=(2, side, side + 32, 3)).astype(np.float32)
    variables = drawn(model, images)
    reference = torch_vgg(torch, model.depths, model.batch_norm)
    reference.load_state_dict(torch_state(variables["params"]) | torch_state(variables.get("batch_stats", {})))
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)(variables, images)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 7), (14, 21), (3, 5), (8, 10), (1, 12)])
def test_adaptive_pooling_is_torchs(torch, shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x.transpose(0, 3, 1, 2)), 7).numpy()
    np.testing.assert_allclose(vgg.adaptive_pool(jnp.asarray(x), 7), expected.transpose(0, 2, 3, 1), atol=1e-6)


def test_dropout_falls_on_the_hidden_layers_in_training_only(drawn):
    model = models.create("vgg11", num_classes=5, depths=(1,) * 5, dropout=0.75, **SMALL)
    x = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))
    variables = drawn(model, x)

    @jax.jit
    def pooled(variables):
        rngs = {"dropout": jax.random.key(2)}
        dropped = model.apply(variables, x, train=True, rngs=rngs, method="features")
        kept = model.apply(variables, x, method="features")
        without = model.clone(dropout=0.0).apply(variables, x, train=True, method="features")  # asks for no rng
        return [features["pooled"] for features in (dropped, kept, without)]

    dropped, kept, without = pooled(variables)
    assert np.mean(dropped == 0) > np.mean(kept == 0) + 0.2
    np.testing.assert_array_equal(without, kept)
