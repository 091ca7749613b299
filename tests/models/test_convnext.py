"""ConvNeXt and V2: logits of transformers' models with our weights, names, and the gradient of GRN at zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models, tree
from imagenet_jax.models import convnext

TINY = {"depths": (1, 2, 1), "widths": (8, 16, 24)}
IMAGES = jax.random.normal(jax.random.key(1), (2, 64, 72, 3))
TO_TRANSFORMERS = [
    (r"^stem\.0", "embeddings.patch_embeddings"),
    (r"^stem\.1", "embeddings.layernorm"),
    (r"^stages", "encoder.stages"),
    (r"downsample\.", "downsampling_layer."),
    (r"blocks\.", "layers."),
    (r"conv\.dw|conv_dw", "dwconv"),
    (r"mlp\.fc", "pwconv"),
    (r"mlp\.grn", "grn"),
    (r"gamma", "layer_scale_parameter"),
    (r"(\d)\.norm\.", r"\1.layernorm."),
    (r"^head\.norm", "layernorm"),
    (r"^head\.fc", "classifier"),
]


def tiny(name="convnext_tiny", **settings):
    return models.create(name, num_classes=7, **TINY, **settings)


@pytest.mark.parametrize("name", ["convnext_tiny", "convnextv2_tiny"])
def test_logits_are_those_of_transformers(torch, transformers, torch_state, drawn, name):
    model = tiny(name)
    variables = drawn(model, IMAGES)
    config = {"depths": [1, 2, 1], "hidden_sizes": [8, 16, 24], "num_stages": 3, "num_labels": 7, "layer_norm_eps": 1e-6}
    if model.grn:
        prefix, theirs = "convnextv2", transformers.ConvNextV2ForImageClassification(transformers.ConvNextV2Config(**config))
    else:
        prefix, theirs = "convnext", transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**config))
    renames = [*TO_TRANSFORMERS, (r"^(embeddings|encoder|layernorm)\.", rf"{prefix}.\1.")]
    state = torch_state(variables["params"], renames)
    theirs.load_state_dict({key: value.reshape(theirs.state_dict()[key].shape) for key, value in state.items()})
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(np.asarray(IMAGES)).permute(0, 3, 1, 2)).logits.numpy()
    assert np.abs(expected).max() > 0.5
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)(variables, IMAGES)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_names_are_timms():
    def names(name):
        variables = jax.eval_shape(lambda: tiny(name).init(jax.random.key(0), IMAGES))
        return {path for path, _ in tree.paths(variables["params"])}

    layers = [f"{layer}/{p}" for layer in ("conv_dw", "mlp/fc1", "mlp/fc2") for p in ("bias", "kernel")]
    block = [*layers, "norm/bias", "norm/scale"]
    blocks = ["stages_0/blocks_0", "stages_1/blocks_0", "stages_1/blocks_1", "stages_2/blocks_0"]
    ends = {"stem_0/bias", "stem_0/kernel", "stem_1/bias", "stem_1/scale"}
    ends |= {"head/fc/bias", "head/fc/kernel", "head/norm/bias", "head/norm/scale"}
    halve = ["downsample_0/bias", "downsample_0/scale", "downsample_1/bias", "downsample_1/kernel"]
    common = ends | {f"{b}/{p}" for b in blocks for p in block} | {f"stages_{i}/{p}" for i in (1, 2) for p in halve}
    assert names("convnext_tiny") == common | {f"{b}/gamma" for b in blocks}
    assert names("convnextv2_tiny") == common | {f"{b}/mlp/grn/{p}" for b in blocks for p in ("bias", "scale")}


def test_layer_scale_starts_at_1e_6_and_grn_as_the_identity():
    """One tiny block with both: drawing the weights of a whole model takes XLA twenty seconds."""
    model = tiny()
    block = convnext.Block(model.layer_scale, True, 0.0, False, jnp.float32, jnp.float32)
    params = block.init(jax.random.key(0), jnp.zeros((1, 2, 2, 4)))["params"]
    np.testing.assert_allclose(params["gamma"], 1e-6)
    assert not jnp.any(params["mlp"]["grn"]["scale"])


def test_grn_has_a_gradient_where_a_channel_is_zero():
    norm = convnext.GlobalResponseNorm(jnp.float32, jnp.float32)
    x = jnp.ones((2, 3, 3, 4)).at[..., 1].set(0.0)
    params = {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}
    grad = jax.jit(jax.grad(lambda x: jnp.sum(jnp.square(norm.apply(params, x)))))(x)
    assert jnp.all(jnp.isfinite(grad))
    assert jnp.all(grad[..., 0] != 0)


def test_stochastic_depth_draws_in_training_only(drawn):
    model = tiny(drop_path=0.6, layer_scale=1.0)
    plain = tiny(drop_path=0.0, layer_scale=1.0)
    variables = drawn(model, IMAGES)

    @jax.jit
    def outputs(variables):
        draws = [model.apply(variables, IMAGES, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1)]
        return *draws, model.apply(variables, IMAGES), plain.apply(variables, IMAGES, train=True)  # without a rate: no rng

    one, two, evaluated, expected = outputs(variables)
    np.testing.assert_allclose(evaluated, expected, atol=1e-5)
    assert min(jnp.max(jnp.abs(one - two)), jnp.max(jnp.abs(one - expected))) > 1e-3
