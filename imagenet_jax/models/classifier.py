"""The table of models, and what one costs, without running it. Adding a model: one family file and one line here."""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.models import (
    airbench,
    convnext,
    densenet,
    efficientnet,
    mixer,
    mobilenet,
    nfnet,
    regnet,
    resnet,
    resnet_cifar,
    vgg,
    vit,
)
from imagenet_jax.models.layers import Classifier, Dtype
from imagenet_jax.settings import check

ZOO: dict[str, Callable[..., Classifier]] = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "resnet50d": resnet.resnet50d,
    "resnext50_32x4d": resnet.resnext50_32x4d,
    "resnext101_32x8d": resnet.resnext101_32x8d,
    "resnext101_64x4d": resnet.resnext101_64x4d,
    "wide_resnet50_2": resnet.wide_resnet50_2,
    "wide_resnet101_2": resnet.wide_resnet101_2,
    "vgg11": vgg.vgg11,
    "vgg13": vgg.vgg13,
    "vgg16": vgg.vgg16,
    "vgg19": vgg.vgg19,
    "vgg11_bn": vgg.vgg11_bn,
    "vgg13_bn": vgg.vgg13_bn,
    "vgg16_bn": vgg.vgg16_bn,
    "vgg19_bn": vgg.vgg19_bn,
    "densenet121": densenet.densenet121,
    "regnet_y_400mf": regnet.regnet_y_400mf,
    "regnet_y_800mf": regnet.regnet_y_800mf,
    "regnet_y_1_6gf": regnet.regnet_y_1_6gf,
    "regnet_y_3_2gf": regnet.regnet_y_3_2gf,
    "regnet_y_8gf": regnet.regnet_y_8gf,
    "regnet_y_16gf": regnet.regnet_y_16gf,
    "mobilenet_v2": mobilenet.mobilenet_v2,
    "mobilenet_v3_small": mobilenet.mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet.mobilenet_v3_large,
    "efficientnet_b0": efficientnet.efficientnet_b0,
    "efficientnet_b1": efficientnet.efficientnet_b1,
    "efficientnet_b2": efficientnet.efficientnet_b2,
    "efficientnet_b3": efficientnet.efficientnet_b3,
    "efficientnet_b4": efficientnet.efficientnet_b4,
    "efficientnet_b5": efficientnet.efficientnet_b5,
    "efficientnet_b6": efficientnet.efficientnet_b6,
    "efficientnet_b7": efficientnet.efficientnet_b7,
    "efficientnet_v2_s": efficientnet.efficientnet_v2_s,
    "efficientnet_v2_m": efficientnet.efficientnet_v2_m,
    "efficientnet_v2_l": efficientnet.efficientnet_v2_l,
    "efficientnet_lite0": efficientnet.efficientnet_lite0,
    "efficientnet_lite1": efficientnet.efficientnet_lite1,
    "efficientnet_lite2": efficientnet.efficientnet_lite2,
    "efficientnet_lite3": efficientnet.efficientnet_lite3,
    "efficientnet_lite4": efficientnet.efficientnet_lite4,
    "nfnet_f0": nfnet.nfnet_f0,
    "nfnet_f1": nfnet.nfnet_f1,
    "convnext_tiny": convnext.convnext_tiny,
    "convnext_small": convnext.convnext_small,
    "convnext_base": convnext.convnext_base,
    "convnext_large": convnext.convnext_large,
    "convnextv2_atto": convnext.convnextv2_atto,
    "convnextv2_femto": convnext.convnextv2_femto,
    "convnextv2_pico": convnext.convnextv2_pico,
    "convnextv2_nano": convnext.convnextv2_nano,
    "convnextv2_tiny": convnext.convnextv2_tiny,
    "convnextv2_base": convnext.convnextv2_base,
    "vit_ti_16": vit.vit_ti_16,
    "vit_s_16": vit.vit_s_16,
    "vit_s_32": vit.vit_s_32,
    "vit_b_16": vit.vit_b_16,
    "vit_b_32": vit.vit_b_32,
    "vit_l_16": vit.vit_l_16,
    "vit_l_32": vit.vit_l_32,
    "vit_l_14": vit.vit_l_14,
    "vit_h_14": vit.vit_h_14,
    "deit_ti_16": vit.deit_ti_16,
    "deit_s_16": vit.deit_s_16,
    "deit_b_16": vit.deit_b_16,
    "deit_ti_16_distilled": vit.deit_ti_16_distilled,
    "deit_s_16_distilled": vit.deit_s_16_distilled,
    "deit_b_16_distilled": vit.deit_b_16_distilled,
    "mixer_s_16": mixer.mixer_s_16,
    "mixer_b_16": mixer.mixer_b_16,
    "resnet8": resnet_cifar.resnet8,
    "resnet20": resnet_cifar.resnet20,
    "resnet32": resnet_cifar.resnet32,
    "resnet44": resnet_cifar.resnet44,
    "resnet56": resnet_cifar.resnet56,
    "resnet110": resnet_cifar.resnet110,
    "airbench94": airbench.airbench94,
}
DTYPES = ("float32", "bfloat16", "float16", "float64")
# What `create` names itself, and what Linen adds to every module.
_NOT_SETTINGS = {"num_classes", "dtype", "param_dtype", "bn_group", "parent", "name"}


def create(
    name: str,
    *,
    num_classes: int,
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype = jnp.float32,
    bn_group: int = 0,
    **settings: Any,
) -> Classifier:
    """The model `name` of `list_models()`; its interface is `layers.Classifier`.

    `dtype` of activations and `param_dtype` of parameters are types or their names ("bfloat16"). `bn_group` examples
    share batch statistics (0: the whole batch). `settings` are the family's own, such as zero_init_last_bn=True.
    Raises UserError for an unknown name, dtype or setting, with near matches.
    """
    if name not in ZOO:
        raise unknown("model", name, ZOO, f"`python -m imagenet_jax.models` lists all {len(ZOO)}.")
    _check(name, settings)
    return ZOO[name](
        num_classes=num_classes,
        dtype=_dtype(dtype),
        param_dtype=_dtype(param_dtype),
        bn_group=bn_group,
        # A config that went through JSON holds lists; Linen's modules are hashable.
        **{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()},
    )


def _check(name: str, settings: dict[str, Any]) -> None:
    """Raise UserError for settings that the model does not have, or that are out of range: numbers of things, and shares."""
    found = {k: p.default for k, p in inspect.signature(ZOO[name]).parameters.items() if k not in _NOT_SETTINGS}
    # Tuples, such as depths, may have any length.
    check(f"model {name!r}", settings, {k: () if isinstance(default, tuple) else default for k, default in found.items()})
    for key, value in settings.items():
        if type(value) is int and type(found[key]) is int and value < 1:
            raise UserError(f"{key}={value} of model {name!r} must be at least 1.")
        if key in ("dropout", "drop_path") and not 0 <= value < 1:
            raise UserError(f"{key}={value} of model {name!r} must lie in [0, 1).")


def list_models() -> list[str]:
    """All names that `create` knows, in the order of the table."""
    return list(ZOO)


class Cost(NamedTuple):
    """`parameters`: trainable numbers; of convolutions and matrix products, one image forward: `multiply_adds`, and the activations
    that they read and write, in numbers.

    A multiply-add is two FLOPs; a training step costs about three forward passes.
    """

    parameters: int
    multiply_adds: int
    read: int
    written: int


def cost(model: Classifier, image_size: int = 0, channels: int = 3) -> Cost:
    """Count from shapes alone (nothing is computed or compiled), at `image_size` pixels, else at the native size.

    Raises UserError where images are so small that strides leave nothing of a map, whose mean would then be NaN.
    """
    side = image_size or model.native_size
    image = jax.ShapeDtypeStruct((1, side, side, channels), model.dtype)

    def run(image: jax.Array) -> Any:
        return model.init_with_output(jax.random.key(0), image, train=False)

    jaxpr, (_, variables) = jax.make_jaxpr(run, return_shape=True)(image)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    equations = list(_equations(jaxpr.jaxpr))
    # Maps have four axes; a table of positions for no token may well be empty.
    if any(variable.aval.ndim == 4 and not variable.aval.size for equation in equations for variable in equation.outvars):
        raise UserError(f"Images of {side} x {side} pixels are too small for this model: its strides leave nothing of them.")
    work = [_work(equation) for equation in equations]
    return Cost(parameters, *(sum(column) for column in zip(*filter(None, work), strict=True)))


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, those of nested calls included (a scan's body counts once)."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns"):
                yield from _equations(getattr(value, "jaxpr", value))


def _work(equation: Any) -> tuple[int, int, int] | None:
    """Multiply-adds, activations read, activations written, of a convolution or a product; None of any other equation."""
    made = equation.outvars[0].aval.size
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        return made * (kernel.size // outputs), equation.invars[0].aval.size, made
    if equation.primitive.name == "dot_general":
        left, right = (variable.aval for variable in equation.invars)
        (contracted, _), (batched, _) = equation.params["dimension_numbers"]
        read = left.size + (right.size if batched else 0)  # what has no batch is a kernel, and no activation
        return made * math.prod(left.shape[axis] for axis in contracted), read, made
    return None


def _dtype(dtype: Dtype) -> Any:
    name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    if jax.dtypes.canonicalize_dtype(name) != name:
        raise UserError("dtype float64 is switched off in jax, which would compute in float32. Set JAX_ENABLE_X64=1.")
    return jnp.dtype(name)
