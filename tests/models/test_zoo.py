"""Every model of the zoo: published numbers, maps at their strides; one small member a family also runs, in both precisions.

A new family needs its rows in models/published.py and a line in SMALL, or these tests fail.
"""

import inspect
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import config, models, tree
from imagenet_jax.models import efficientnet, mobilenet
from imagenet_jax.models.published import PUBLISHED
from imagenet_jax.optim import masks

# A member of each family, with settings that make it compile in seconds, and the side of its images.
SMALL = {
    "resnet50": ({"depths": (1, 1), "width": 16}, 32),
    "vgg11_bn": ({"depths": (1, 1, 1, 1, 1), "width": 8, "hidden": 32}, 32),
    "densenet121": ({"depths": (2, 2), "width": 16, "growth": 8}, 32),
    "regnet_y_400mf": ({"depths": (1, 2), "widths": (16, 32)}, 32),
    "convnext_tiny": ({"depths": (1, 1), "widths": (8, 16), "layer_scale": 1.0}, 32),
    "vit_s_16": ({"width": 32, "depth": 1, "heads": 2, "native_size": 64}, 32),
    "mixer_s_16": ({"width": 32, "depth": 1}, 32),
    "mobilenet_v3_small": ({"rows": (mobilenet.V3_SMALL[0], mobilenet.V3_SMALL[3]), "widest": 32, "hidden": 16}, 32),
    "efficientnet_b0": ({"stages": (efficientnet.Stage(4, 3, 2, 16, 2),), "stem": 16, "widest": 32}, 32),
    "nfnet_f0": ({"depths": (1,), "widths": (32,), "group_width": 8}, 32),
    "resnet8": ({}, 32),
    "airbench94": ({"widths": (8, 16, 16)}, 32),
}


def classes_of(model) -> int:
    """How many classes the published numbers are for."""
    return 10 if model.native_size == 32 else 1000


def family(name: str) -> str:
    constructor = models.ZOO[name]
    return getattr(constructor, "func", constructor).__module__


def strides(name: str) -> set[int]:
    """Of which maps `features` must give: the patch of an isotropic model, 1-2-4 for small images, else four stages."""
    if patch := re.match(r"(?:vit|deit|mixer)_[a-z]+_(\d+)", name):
        return {int(patch[1])}
    if name == "airbench94":  # 31, 15, 7 and 3 pixels wide
        return set()
    return {1, 2, 4} if models.create(name, num_classes=1).native_size == 32 else {4, 8, 16, 32}


def quick_or_slow(names) -> list:
    """The large members repeat what the small ones of their family show: they are traced with the slow tests."""
    slow = [name for name in names if name in PUBLISHED and PUBLISHED[name].parameters > 40e6]
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


@pytest.mark.parametrize("name", [*SMALL, "convnextv2_atto", "deit_ti_16_distilled"])
def test_weight_decay_takes_kernels_and_nothing_else_by_default(name):
    model = models.create(name, num_classes=7, **({"layer_scale": 0.1} if name.startswith("deit") else {}))
    image = jax.ShapeDtypeStruct((1, model.native_size, model.native_size, 3), jnp.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)["params"]
    decayed = masks.decayed(params, config.default().no_weight_decay)
    assert [path for path, is_decayed in tree.paths(decayed) if is_decayed != path.endswith("/kernel")] == []


def test_every_model_has_its_published_row_and_every_family_a_small_member():
    assert list(PUBLISHED) == list(models.ZOO)
    assert sorted(family(name) for name in SMALL) == sorted({family(name) for name in models.ZOO})


@pytest.mark.parametrize("name", models.ZOO)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    """Every parameter, and the multiply-adds to the last digit that the source gives."""
    published = PUBLISHED[name]
    cost = models.cost(models.create(name, num_classes=classes_of(models.create(name, num_classes=1))))
    assert cost.parameters == published.parameters
    digits = len(str(published.gmacs).split(".")[1])
    assert cost.multiply_adds / 1e9 == pytest.approx(published.gmacs, abs=0.51 * 10**-digits)


@pytest.mark.parametrize("name", quick_or_slow(models.ZOO))
def test_maps_lie_at_their_strides_for_other_sizes_channels_and_classes(name):
    """Twice as high as wide, two channels, seven classes, in bfloat16; from shapes alone."""
    model = models.create(name, num_classes=7, dtype="bfloat16")
    height, width = 2 * model.native_size, model.native_size
    images = jax.ShapeDtypeStruct((3, height, width, 2), jnp.float32)

    def run(images):
        return model.init_with_output(jax.random.key(0), images, train=False, head=True, method="forward")

    outputs, variables = jax.eval_shape(run, images)
    logits, pooled = outputs.pop("logits"), outputs.pop("pooled")
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)
    assert (pooled.ndim, pooled.shape[0], pooled.dtype) == (2, 3, jnp.float32)
    assert outputs.keys() == {f"stride{s}" for s in strides(name)}
    for stride in strides(name):
        feature = outputs[f"stride{stride}"]
        assert feature.shape[:3] == (3, -(-height // stride), -(-width // stride))
        assert feature.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_member_runs_forward_and_backward_and_in_bfloat16(drawn, name):
    settings, side = SMALL[name]
    wide, narrow = (models.create(name, num_classes=5, dtype=dtype, **settings) for dtype in ("float32", "bfloat16"))
    images = jax.random.normal(jax.random.key(1), (4, side, side, 3))
    variables = drawn(wide, images)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # halves the time, most of which is compiling
    def run(variables):
        def loss(params):
            rngs = {"dropout": jax.random.key(2)}
            given = {**variables, "params": params}
            logits, updated = wide.apply(given, images, train=True, mutable=["batch_stats"], rngs=rngs)
            return -jnp.mean(jax.nn.log_softmax(logits)[:, 0]), updated

        grads, updated = jax.grad(loss, has_aux=True)(variables["params"])
        return grads, updated, wide.apply(variables, images), narrow.apply(variables, images)

    grads, updated, logits, rough = run(variables)
    for path, leaf in tree.paths((grads, updated, logits)):
        assert np.all(np.isfinite(leaf)), path
    kernels = [leaf for path, leaf in tree.paths(grads) if path.endswith("kernel")]
    assert sum(bool(jnp.any(leaf != 0)) for leaf in kernels) > len(kernels) // 2  # a branch may start with gain 0
    spread = float(jnp.max(jnp.abs(logits - jnp.mean(logits, 0, keepdims=True))))
    assert spread > 0  # the images tell themselves apart: a difference below says something
    # bfloat16 keeps 8 bits, 0.4 %; each layer rounds again.
    np.testing.assert_allclose(rough, logits, rtol=0, atol=0.05 * float(jnp.max(jnp.abs(logits))))


@pytest.mark.parametrize("name", [n for n in SMALL if "remat" in inspect.signature(models.ZOO[n]).parameters])
def test_remat_recomputes_and_keeps_every_name(name):
    settings, side = SMALL[name]
    images = jnp.zeros((2, side, side, 3))
    plain, remat = (models.create(name, num_classes=5, remat=r, **settings) for r in (False, True))
    shapes = [jax.eval_shape(lambda m=m: m.init(jax.random.key(0), images)) for m in (plain, remat)]
    assert shapes[0] == shapes[1]
    jaxprs = [str(jax.make_jaxpr(m.apply)(shapes[0], images)) for m in (plain, remat)]
    assert ["checkpoint" in jaxpr or "remat" in jaxpr for jaxpr in jaxprs] == [False, True]
