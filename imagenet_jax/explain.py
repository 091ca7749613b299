"""Where a model looks for a class: Grad-CAM of convolutional networks and mixers, attention rollout of transformers.

Any model of the zoo will do as it is: Grad-CAM needs the gradient of a logit by the last map, which no model takes as an argument,
so the traced computation is given it as one.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from imagenet_jax.models import Classifier
from imagenet_jax.models.vit import ViT
from imagenet_jax.ops.images import normalize

Heat = Callable[[Any, jax.Array, jax.Array], jax.Array]


def make_heat_step(model: Classifier, *, mean: Sequence[float], std: Sequence[float]) -> Heat:
    """(variables, uint8 image (1, h, w, 3), label) -> float32 (rows, columns) in 0 .. 1, to be stretched over the image.

    Of a ViT, attention: the label changes nothing.
    """

    def heat_step(variables: Any, images: jax.Array, label: jax.Array) -> jax.Array:
        normalized = normalize(images, mean, std, model.dtype)
        heat = rollout(model, variables, normalized) if isinstance(model, ViT) else grad_cam(model, variables, normalized, label)
        return heat / jnp.maximum(jnp.max(heat), 1e-12)

    return heat_step


def grad_cam(model: Classifier, variables: Any, images: jax.Array, label: jax.Array) -> jax.Array:
    """Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2, at the last map of `features`: (rows, columns), 0 and more."""

    def forward(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        out: Any = model.apply(variables, images, False, True, method="forward")
        strides = [name for name in out if name.startswith("stride")]
        return out[max(strides, key=lambda name: int(name.removeprefix("stride")))], out["logits"]

    traced = jax.make_jaxpr(forward)(images)
    last, _ = jaxpr_as_fun(traced)(images)
    inner = _before_reshapes(traced.jaxpr)

    rest = _from_there(traced, inner)

    def logit(maps: jax.Array) -> jax.Array:
        return rest(maps.reshape(inner.aval.shape))[1][0, label]

    slopes = jax.grad(logit)(last)
    weights = jnp.mean(slopes.astype(jnp.float32), (1, 2))
    return jax.nn.relu(jnp.einsum("nc,nhwc->nhw", weights, last.astype(jnp.float32)))[0]


def _before_reshapes(jaxpr: Any) -> Any:
    """The variable that the first result was reshaped from: a mixer's map is made from tokens, and the rest goes on from those."""
    made_by = {var: equation for equation in jaxpr.eqns for var in equation.outvars}
    var = jaxpr.outvars[0]
    while var in made_by and made_by[var].primitive.name == "reshape":
        var = made_by[var].invars[0]
    return var


def _from_there(traced: Any, var: Any) -> Callable[[jax.Array], list[jax.Array]]:
    """The results as a function of the value of `var`: the equations that need nothing but it and the weights."""
    old = traced.jaxpr
    known, equations = {*old.constvars, var}, []
    for equation in old.eqns:
        if var not in equation.outvars and all(isinstance(v, Literal) or v in known for v in equation.invars):
            equations.append(equation)
            known.update(equation.outvars)
    rest = Jaxpr(old.constvars, [var], old.outvars, equations, old.effects, old.debug_info)
    return jaxpr_as_fun(ClosedJaxpr(rest, traced.consts))


def rollout(model: ViT, variables: Any, images: jax.Array) -> jax.Array:
    """How much of each patch reaches what is classified, through all blocks: (rows, columns), 0 and more.

    Abnar and Zuidema 2020, arXiv 2005.00928, section 3: the product over blocks of (attention, the mean of its heads, + 1) / 2.
    """
    captured: Any = model.apply(
        variables, images, capture_intermediates=lambda module, _: module.name == "qkv", mutable=["intermediates"]
    )
    blocks = captured[1]["intermediates"]
    tokens = model.class_token + model.distilled
    reached: Any = None
    for name in sorted((n for n in blocks if re.fullmatch(r"blocks_\d+", n)), key=lambda n: int(n.removeprefix("blocks_"))):
        (qkv,) = blocks[name]["attn"]["qkv"]["__call__"]
        n = qkv.shape[1]
        q, k, _ = jnp.moveaxis(qkv[0].astype(jnp.float32).reshape(n, 3, model.heads, -1), 1, 0)
        attention = jnp.mean(jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k) / jnp.sqrt(q.shape[-1])), 0)
        step = (attention + jnp.eye(n)) / 2
        reached = step if reached is None else step @ reached
    rows = reached[:tokens] if model.pool == "cls" else reached[tokens:]
    height, width = images.shape[1] // model.patch, images.shape[2] // model.patch
    return jnp.mean(rows, 0)[tokens:].reshape(height, width)
