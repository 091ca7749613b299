"""ONNX files: what onnxruntime makes of them is what our models say, for every family, at any batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from imagenet_jax import convert, models, tree
from imagenet_jax.errors import UserError
from imagenet_jax.models import efficientnet, mobilenet
from imagenet_jax.pretrained import names, onnx_graph, weights

SMALL = {  # a member of each family, made small
    "resnet50d": {"depths": (1, 1), "width": 16},
    "resnet50": {"depths": (1, 1), "width": 16, "fold_bn": True},
    "vit_s_16": {"width": 32, "depth": 1, "heads": 2},
    "efficientnet_lite0": {"stages": (efficientnet.Stage(4, 3, 2, 16, 2),), "stem": 16, "widest": 32},
    "vgg11_bn": {"depths": (1, 1, 1, 1, 1), "width": 8, "hidden": 32},
    "densenet121": {"depths": (2, 2), "width": 16, "growth": 8},
    "regnet_y_400mf": {"depths": (1, 2), "widths": (16, 32)},
    "convnext_tiny": {"depths": (1, 1), "widths": (8, 16), "layer_scale": 1.0},
    "convnextv2_atto": {"depths": (1, 1), "widths": (8, 16)},
    "deit_ti_16_distilled": {"width": 32, "depth": 1, "heads": 2},
    "vit_ti_16": {"width": 32, "depth": 1, "heads": 2, "pool": "gap"},
    "mixer_s_16": {"width": 32, "depth": 1},
    "mobilenet_v2": {},
    "mobilenet_v3_small": {"rows": (mobilenet.V3_SMALL[0], mobilenet.V3_SMALL[3]), "widest": 32, "hidden": 16},
    "efficientnet_v2_s": {"stages": (efficientnet.Stage(4, 3, 2, 16, 2, fused=True),), "stem": 16, "widest": 32},
    "nfnet_f0": {"depths": (1,), "widths": (32,), "group_width": 8},
    "resnet8": {},
    "airbench94": {"widths": (8, 16, 16)},
}
QUICK = ("resnet50d", "vit_s_16")
SIDE = 64


def open_images(side=SIDE):
    (batch,) = export.symbolic_shape("b")
    return jax.ShapeDtypeStruct((batch, side, side, 3), "uint8")


def variables_of(model):
    rng = np.random.default_rng(0)

    def leaf(path, like):
        spread = (2 / np.prod(like.shape[:-1])) ** 0.5 if path.endswith("kernel") else 0.1
        value = rng.uniform(0.5, 1.5, like.shape) if path.endswith(("scale", "var")) else spread * rng.standard_normal(like.shape)
        return value.astype(like.dtype)

    return tree.map_with_path(leaf, names.variables_like(model))


def ran(onnxruntime, content, images):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": images})[0]


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALL])
def test_logits_are_ours_for_any_number_of_images(name, onnxruntime):
    model = models.create(name, num_classes=7, native_size=SIDE, **SMALL[name])
    variables = variables_of(model)

    def logits(images):
        return model.apply(variables, (images.astype("float32") - 127) / 64)

    content = onnx_graph.convert(logits, open_images())
    images = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    with jax.default_matmul_precision("highest"):
        wanted = np.asarray(jax.jit(logits)(images))
    assert wanted.std() > 0.01
    for n in (1, 3):
        np.testing.assert_allclose(ran(onnxruntime, content, images[:n]), wanted[:n], atol=1e-4)


def test_a_model_that_computes_in_halves_goes_out_in_float32(onnxruntime):
    model = models.create("resnet8", num_classes=5, dtype="bfloat16", param_dtype="bfloat16")
    p = weights.Preprocessing(32, 0.875, "bicubic", (0.5,) * 3, (0.25,) * 3)
    found = weights.Weights(model, variables_of(model), "resnet8", {}, tuple("abcde"), p, {})
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    got = ran(onnxruntime, convert.onnx(found), images)
    single = model.clone(dtype=jnp.float32, param_dtype=jnp.float32)
    wanted = jax.nn.softmax(single.apply(found.variables, (images / np.float32(255) - np.float32(0.5)) / np.float32(0.25)))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_what_has_no_translation_is_refused_by_name():
    with pytest.raises(UserError, match="The model uses sort"):
        onnx_graph.convert(lambda x: jnp.sort(x.astype("float32"), 1), open_images())
    with pytest.raises(UserError, match="The model uses scan"):  # its body is no call, which runs once
        onnx_graph.convert(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y * 2, x.astype("float32")), open_images())
    with pytest.raises(UserError, match="gathers"):
        onnx_graph.convert(lambda x: x[:, np.asarray([0, 2])].astype("float32"), open_images())


def test_a_model_too_large_for_a_file_is_refused(monkeypatch):
    monkeypatch.setattr(onnx_graph, "MAX_BYTES", 100)
    with pytest.raises(UserError, match=r"more than the 2\.1 GB"):
        onnx_graph.convert(lambda x: x.astype("float32") * np.ones((1, SIDE, SIDE, 3), np.float32), open_images())
