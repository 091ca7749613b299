"""Names, settings and dtypes as a user writes them, and what a mistake says."""

import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from imagenet_jax import models
from imagenet_jax.errors import UserError


def test_every_name_makes_a_model_of_its_classes():
    assert models.list_models() == list(models.ZOO)
    for name in models.list_models():
        model = models.create(name, num_classes=3, dtype="bfloat16", bn_group=2)
        assert (model.num_classes, model.bn_group, model.dtype, model.param_dtype) == (3, 2, jnp.bfloat16, jnp.float32)


def test_an_unknown_name_lists_near_matches_and_the_command():
    with pytest.raises(UserError, match=r"No model 'resnet5O'. Did you mean .*'resnet50'.*python -m imagenet_jax.models"):
        models.create("resnet5O", num_classes=10)


def test_an_unknown_setting_lists_near_matches():
    with pytest.raises(UserError, match=r"No setting of model 'resnet20' 'zero_init'. Did you mean 'zero_init_last_bn'"):
        models.create("resnet20", num_classes=10, zero_init=True)
    with pytest.raises(UserError, match="No setting"):
        models.create("resnet20", num_classes=10, parent=None)


def test_an_unknown_dtype_lists_those_that_work():
    with pytest.raises(UserError, match="No dtype 'bf16'"):
        models.create("resnet20", num_classes=10, dtype="bf16")
    with pytest.raises(UserError, match="No dtype 'int32'"):
        models.create("resnet20", num_classes=10, param_dtype=jnp.int32)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet50", {"remat": "false"}, "remat='false' is no such setting of model 'resnet50'; wanted: True or False"),
        ("resnet50", {"depths": 3}, "depths=3 is no such setting"),
        ("vit_s_16", {"depth": 0}, "depth=0 of model 'vit_s_16' must be at least 1"),
        ("vit_s_16", {"dropout": -0.5}, r"dropout=-0.5 of model 'vit_s_16' must lie in \[0, 1\)"),
        ("vit_s_16", {"dtype": "float64"}, "float64 is switched off in jax"),
    ],
)
def test_settings_that_no_model_can_have(name, settings, message):
    with pytest.raises(UserError, match=message):
        models.create(name, num_classes=10, **settings)


def test_settings_may_come_from_json():
    model = models.create("resnet50", num_classes=10, max_pool_padding=[0, 1])
    assert model.max_pool_padding == (0, 1)
    hash(model)


def test_cost_follows_image_size_and_channels():
    model = models.create("resnet20", num_classes=10)
    assert models.cost(model) == models.cost(model, 32)
    dense = 640
    assert models.cost(model, 64).multiply_adds - dense == 4 * (models.cost(model, 32).multiply_adds - dense)
    assert models.cost(model).parameters - models.cost(model, channels=1).parameters == 2 * 9 * 16


@pytest.mark.parametrize("name", ["vgg11", "convnextv2_atto", "airbench94"])
def test_images_of_which_strides_leave_nothing_are_refused(name):
    with pytest.raises(UserError, match="Images of 8 x 8 pixels are too small"):
        models.cost(models.create(name, num_classes=3), 8)


def test_importing_the_zoo_makes_no_jax_call():
    """With a platform that does not exist, the first jax call would fail."""
    subprocess.run([sys.executable, "-c", "import imagenet_jax.models"], env={**os.environ, "JAX_PLATFORMS": "absent"}, check=True)
