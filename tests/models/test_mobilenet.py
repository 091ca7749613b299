"""MobileNetV2 and V3 against torch, with torchvision's names."""

import jax
import numpy as np
import pytest

from imagenet_jax import models


def torch_mobilenet(torch, model, channels=3):
    """torchvision's MobileNet with the rows of `model`: "conv" and "block" are what V2 and V3 call a block's layers."""
    nn, v2 = torch.nn, model.prefix == "conv"
    acts = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hard_silu": nn.Hardswish}

    def unit(inputs, outputs, kernel=1, stride=1, groups=1, act=nn.Identity):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=model.bn_epsilon), act())

    class SqueezeExcite(nn.Module):
        def __init__(self, channels):
            super().__init__()
            squeezed = max(8, (channels // 4 + 4) // 8 * 8)
            squeezed += 8 * (squeezed < 0.9 * (channels // 4))
            self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

        def forward(self, x):
            return x * nn.functional.hardsigmoid(self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()))

    class Block(nn.Module):
        def __init__(self, inputs, row):
            super().__init__()
            act, hidden = acts[row.act.__name__], row.expanded
            parts = [unit(inputs, hidden, act=act)] if hidden != inputs else []
            parts += [unit(hidden, hidden, row.kernel, row.stride, hidden, act)]
            parts += [SqueezeExcite(hidden)] if row.se else []
            last = unit(hidden, row.width)
            self.add_module(model.prefix, nn.Sequential(*parts, *(last[:2] if v2 else [last])))
            self.residual = row.stride == 1 and inputs == row.width

        def forward(self, x):
            y = getattr(self, model.prefix)(x)
            return x + y if self.residual else y

    act, inputs = acts[model.act.__name__], model.stem
    parts = [unit(channels, inputs, 3, 2, act=act)]
    for row in model.rows:
        parts.append(Block(inputs, row))
        inputs = row.width
    parts.append(unit(inputs, model.widest, act=act))
    hidden = [nn.Linear(model.widest, model.hidden), nn.Hardswish()] if model.hidden else []
    classifier = nn.Sequential(*hidden, nn.Dropout(0.2), nn.Linear(model.hidden or model.widest, model.num_classes))
    names = {
        "features": nn.Sequential(*parts),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": classifier,
    }
    reference = nn.Sequential()
    for name, module in names.items():
        reference.add_module(name, module)
    return reference.eval()


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"])
def test_logits_are_torchs(torch, torch_state, drawn, name):
    """On the first rows, which have every kind of block, and on sizes that are odd at some stride."""
    rows = models.create(name, num_classes=5).rows
    model = models.create(name, num_classes=5, rows=rows[:6] + rows[-1:], widest=96)
    images = np.random.default_rng(1).normal(size=(2, 72, 52, 3)).astype(np.float32)
    variables = drawn(model, images)
    reference = torch_mobilenet(torch, model)
    reference.load_state_dict(torch_state(variables["params"]) | torch_state(variables["batch_stats"]))
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)(variables, images)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_dropout_is_of_the_classifiers_inputs_and_only_in_training(drawn):
    rows = models.create("mobilenet_v3_small", num_classes=5).rows[:3]
    model = models.create("mobilenet_v3_small", num_classes=5, rows=rows, widest=16, hidden=8, dropout=0.5)
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 3)).astype(np.float32)
    variables = drawn(model, images)

    @jax.jit
    def train(key):
        rngs = {"dropout": key}
        outputs, _ = model.apply(variables, images, True, True, rngs=rngs, mutable=["batch_stats"], method="forward")
        return outputs

    first, second = train(jax.random.key(0)), train(jax.random.key(1))
    np.testing.assert_array_equal(first["pooled"], second["pooled"])
    assert np.max(np.abs(first["logits"] - second["logits"])) > 0.01
    jax.eval_shape(model.apply, variables, images)  # asks for no rng
