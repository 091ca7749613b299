"""Settings that a config gives by name to a model, an optimizer or an augmentation: known ones, of the form of their defaults."""

import math
from collections.abc import Mapping
from typing import Any

from imagenet_jax.errors import UserError, unknown


def check(what: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise UserError for a setting of `what` that is not among `defaults`, or whose value has another form than the default."""
    for key, value in settings.items():
        if key not in defaults:
            raise unknown(f"setting of {what}", key, defaults)
        if not alike(value, default := defaults[key]):
            wanted = "True or False" if isinstance(default, bool) else f"something like the default, {default!r}"
            raise UserError(f"{key}={value!r} is no such setting of {what}; wanted: {wanted}.")


def alike(value: Any, default: Any) -> bool:
    """Whether `value` has the form of `default`: a finite number (whole where that is whole), or as many of them.

    Where the default is None, a number or None; where it is (), any sequence.
    """
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and (not default or (len(value) == len(default) and all(map(alike, value, default))))
    if default is None:
        return value is None or alike(value, 0.0)
    if isinstance(default, bool) or not isinstance(default, int | float):
        return isinstance(value, type(default)) or (callable(default) and callable(value))
    kinds = int if isinstance(default, int) else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
