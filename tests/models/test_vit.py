"""ViT and DeiT: logits of transformers' models with our weights; pooling, positions and settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models, tree
from imagenet_jax.errors import UserError
from imagenet_jax.models import vit

TINY = {"width": 48, "heads": 3, "native_size": 64}
IMAGES = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
TO_TRANSFORMERS = [
    (r"^(cls_token|dist_token|pos_embed|patch_embed)", r"embeddings.\1"),
    (r"pos_embed", "position_embeddings"),
    (r"dist_token", "distillation_token"),
    (r"patch_embed\.proj", "patch_embeddings.projection"),
    (r"^blocks\.", "layers."),
    (r"attn\.", "attention."),
    (r"attention\.proj", "attention.o_proj"),
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"^norm\.", "layernorm."),
]


def tiny(name="vit_b_16", depth=1, **settings):
    return models.create(name, num_classes=7, depth=depth, **(TINY | settings))


def split_qkv(state):
    """transformers keeps q, k and v in three layers."""
    for name in [name for name in state if ".qkv." in name]:
        for letter, part in zip("qkv", state.pop(name).chunk(3), strict=True):
            state[name.replace("qkv", f"{letter}_proj")] = part
    return state


def run(model, variables, images=IMAGES, **options):
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda v, x: model.apply(v, x, **options))(variables, images)


@pytest.mark.parametrize("name", ["vit_b_16", "deit_b_16_distilled"])
def test_logits_are_those_of_transformers(torch, transformers, torch_state, drawn, name):
    model = tiny(name, depth=2)
    variables = drawn(model, IMAGES)
    config = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
    config |= {"image_size": 64, "num_labels": 7, "layer_norm_eps": 1e-6}
    if model.distilled:
        theirs = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**config)).eval()
        prefix, heads = "deit.", [(r"^head\.", "cls_classifier."), (r"^head_dist\.", "distillation_classifier.")]
    else:
        theirs = transformers.ViTForImageClassification(transformers.ViTConfig(**config)).eval()
        prefix, heads = "vit.", [(r"^head\.", "classifier.")]
    renames = [*TO_TRANSFORMERS, (r"^(embeddings|layers|layernorm)\.", rf"{prefix}\1."), *heads]
    theirs.load_state_dict(split_qkv(torch_state(variables["params"], renames)))
    with torch.no_grad():
        expected = theirs(torch.tensor(np.asarray(IMAGES)).permute(0, 3, 1, 2)).logits.numpy()
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(run(model, variables), expected, rtol=0, atol=1e-5)


def test_names_are_timms():
    def names(**settings):
        variables = jax.eval_shape(lambda: tiny(depth=2, **settings).init(jax.random.key(0), IMAGES))
        return [path for path, _ in tree.paths(variables["params"])]

    layers = ("attn/proj", "attn/qkv", "mlp/fc1", "mlp/fc2")
    block = [f"{layer}/{p}" for layer in layers for p in ("bias", "kernel")]
    block += [f"{norm}/{p}" for norm in ("norm1", "norm2") for p in ("bias", "scale")]
    ends = ["cls_token", "head/bias", "head/kernel", "norm/bias", "norm/scale"]
    ends += ["patch_embed/proj/bias", "patch_embed/proj/kernel", "pos_embed"]
    plain = {*ends, *(f"blocks_{i}/{p}" for i in (0, 1) for p in block)}
    assert set(names()) == plain
    assert set(names(layer_scale=0.1)) - plain == {f"blocks_{i}/ls{j}/gamma" for i in (0, 1) for j in (1, 2)}
    assert set(names(distilled=True)) - plain == {"dist_token", "head_dist/bias", "head_dist/kernel"}
    assert plain - set(names(pool="gap", class_token=False, positions="sincos2d")) == {"cls_token", "pos_embed"}


@pytest.mark.parametrize("class_token", [True, False])
def test_gap_is_the_mean_of_the_normalised_patches(drawn, class_token):
    model = tiny(pool="gap", class_token=class_token)
    variables = drawn(model, IMAGES)
    maps = run(model, variables, method="features")
    patches = np.asarray(maps["stride16"]).reshape(2, 16, 48)
    norm = variables["params"]["norm"]
    centred = patches - patches.mean(-1, keepdims=True)
    normalised = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(maps["pooled"], normalised.mean(1), atol=1e-5)


def test_blocks_with_layer_scale_0_leave_patches_and_positions(drawn):
    """What comes out is the patch embedding plus the position: the map lies as the image does."""
    model = tiny(layer_scale=0.1)
    params = tree.map_with_path(lambda path, p: 0 * p if path.endswith("gamma") else p, drawn(model, IMAGES)["params"])
    images = IMAGES.at[1, 16:32, 48:].set(0.0)  # the patch in the second row, fourth column
    patches = run(model, {"params": params}, images, method="features")["stride16"]
    expected = params["patch_embed"]["proj"]["bias"] + params["pos_embed"][0, 1 + 4 * 1 + 3]
    np.testing.assert_allclose(patches[1, 1, 3], expected, atol=1e-6)
    assert not np.allclose(patches[1, 3, 1], expected, atol=0.1)


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize("new", [(6, 5), (3, 2), (14, 3)])
def test_positions_are_resized_as_timm_does_with_torch(torch, method, new):
    table = np.random.default_rng(0).normal(size=(1, 2 + 7 * 4, 5)).astype(np.float32)
    ours = np.asarray(vit.resize_positions(jnp.asarray(table), (7, 4), new, method))
    grid = torch.tensor(table[:, 2:].reshape(1, 7, 4, 5)).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(grid, new, mode=method, antialias=True).permute(0, 2, 3, 1).reshape(1, -1, 5)
    np.testing.assert_array_equal(ours[:, :2], table[:, :2])
    np.testing.assert_allclose(ours[:, 2:], theirs.numpy(), atol=2e-6)


def test_equal_grids_keep_the_table_itself():
    table = jnp.ones((1, 5, 8), jnp.bfloat16)
    assert vit.resize_positions(table, (2, 2), (2, 2)) is table
    assert vit.resize_positions(table, (2, 2), (3, 3)).dtype == jnp.bfloat16


def test_images_of_another_size_see_resized_positions(drawn):
    """Blocks with layer scale 0 and black images leave positions and the bias of the patches alone."""
    model = tiny(layer_scale=0.1)
    params = tree.map_with_path(lambda path, p: 0 * p if path.endswith("gamma") else p, drawn(model, IMAGES)["params"])
    map_ = run(model, {"params": params}, jnp.zeros((1, 96, 48, 3)), method="features")["stride16"]
    resized = np.asarray(vit.resize_positions(params["pos_embed"], (4, 4), (6, 3)))[:, 1:].reshape(1, 6, 3, 48)
    np.testing.assert_allclose(map_, resized + np.asarray(params["patch_embed"]["proj"]["bias"]), atol=1e-6)


def test_sincos_positions_are_beyer_et_als():
    """Columns: sin x, cos x, sin y, cos y; the first frequency 1, the last 1e-4."""
    table = np.asarray(vit.sincos2d(5, 4, 16)).reshape(5, 4, 16)
    for y, x in [(0, 0), (3, 2), (4, 3)]:
        for k, frequency in enumerate([1, 10 ** (-4 / 3), 10 ** (-8 / 3), 1e-4]):
            expected = [np.sin(x * frequency), np.cos(x * frequency), np.sin(y * frequency), np.cos(y * frequency)]
            np.testing.assert_allclose(table[y, x, k::4], expected, atol=1e-6)


@pytest.mark.parametrize("settings", [{"dropout": 0.5}, {"drop_path": 0.5, "depth": 2}])
def test_dropout_and_drop_path_draw_in_training_only(drawn, settings):
    model, plain = tiny(**settings), tiny(depth=settings.get("depth", 1))
    variables = drawn(model, IMAGES)

    @jax.jit
    def outputs(variables):
        draws = [model.apply(variables, IMAGES, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1)]
        return *draws, model.apply(variables, IMAGES), plain.apply(variables, IMAGES, train=True)  # without rates: no rng

    one, two, evaluated, expected = outputs(variables)
    np.testing.assert_allclose(evaluated, expected, atol=1e-5)
    assert min(jnp.max(jnp.abs(one - two)), jnp.max(jnp.abs(one - expected))) > 1e-2


@pytest.mark.parametrize(
    ("settings", "side", "message"),
    [
        ({"pool": "map"}, 64, "No pool 'map'"),
        ({"positions": "sincos"}, 64, "No positions 'sincos'. Did you mean 'sincos2d'"),
        ({"class_token": False}, 64, "pool='cls' takes the class token"),
        ({"distilled": True, "pool": "gap"}, 64, "distilled=True has a head for each"),
        ({"heads": 5}, 64, "does not divide into heads=5"),
        ({"positions": "sincos2d", "width": 6, "heads": 3}, 64, "needs a width that is a multiple of 4, not 6"),
        ({}, 65, r"Images of 65 x 65 pixels do not divide into patches of 16. Use 64 x 64."),
        ({}, 7, r"Use 16 x 16."),
    ],
)
def test_what_cannot_be_is_refused(settings, side, message):
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda x: tiny(**settings).init(jax.random.key(0), x), images)


def test_float64_all_through(x64):
    model = tiny(dtype="float64", param_dtype="float64", layer_scale=0.1)
    images = jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float64)
    outputs, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((outputs, variables))} == {"float64"}


def test_flash_attention_is_for_training_alone(drawn, monkeypatch):
    """No cuDNN, or none for float32: refused in one line. With attention as XLA computes it in its place, training is the same."""
    model = vit.ViT(patch=4, width=8, depth=2, heads=2, num_classes=3, native_size=8, flash=True)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = drawn(model, images)
    with pytest.raises(UserError, match=r"flash=True: \w.*here float32.*settings\.flash=False"):
        model.apply(variables, images, train=True)
    asked = []

    def attention(q, k, v, implementation, plain=jax.nn.dot_product_attention):
        asked.append(implementation)
        return plain(q, k, v)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    np.testing.assert_array_equal(model.apply(variables, images, train=True), model.apply(variables, images))
    assert asked == ["cudnn", "cudnn", "xla", "xla"]
