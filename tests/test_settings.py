"""What a config sets by name has the form of its default."""

import pytest

from imagenet_jax import settings
from imagenet_jax.errors import UserError


@pytest.mark.parametrize(
    ("value", "default", "fits"),
    [
        (1, 0.9, True), (0.5, 1, False), (True, 1, False), (True, 0.5, False),
        (float("nan"), 0.9, False), (float("inf"), 0.9, False),
        ("false", False, False), (0, False, False), (True, False, True), (None, None, True), (0.5, None, True), ("a", None, False),
        ([0.1, 1], (0.08, 1.0), True), ((0.1,), (0.08, 1.0), False), ((1, 2, 3), (), True), (3, (), False), (len, min, True),
    ],
)  # fmt: skip
def test_forms(value, default, fits):
    assert settings.alike(value, default) is fits


def test_messages():
    with pytest.raises(UserError, match=r"No setting of model 'm' 'rema'. Did you mean 'remat'"):
        settings.check("model 'm'", {"rema": True}, {"remat": False})
    with pytest.raises(UserError, match="remat='false' is no such setting of model 'm'; wanted: True or False"):
        settings.check("model 'm'", {"remat": "false"}, {"remat": False})
