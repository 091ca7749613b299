"""The table of models, and what one costs, without running it. Adding a model: one family file and one line here."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from imagenet_jax.errors import unknown
from imagenet_jax.models import resnet, resnet_cifar
from imagenet_jax.models.layers import Classifier, Dtype

ZOO: dict[str, Callable[..., Classifier]] = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "resnet8": resnet_cifar.resnet8,
    "resnet20": resnet_cifar.resnet20,
    "resnet32": resnet_cifar.resnet32,
    "resnet44": resnet_cifar.resnet44,
    "resnet56": resnet_cifar.resnet56,
    "resnet110": resnet_cifar.resnet110,
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
    allowed = inspect.signature(ZOO[name]).parameters.keys() - _NOT_SETTINGS
    for key in settings:
        if key not in allowed:
            raise unknown(f"setting of model {name!r}", key, allowed)
    return ZOO[name](
        num_classes=num_classes,
        dtype=_dtype(dtype),
        param_dtype=_dtype(param_dtype),
        bn_group=bn_group,
        # A config that went through JSON holds lists; Linen's modules are hashable.
        **{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()},
    )


def list_models() -> list[str]:
    """All names that `create` knows, in the order of the table."""
    return list(ZOO)


class Cost(NamedTuple):
    """`parameters`: trainable numbers; `multiply_adds`: of convolutions and matrix products, one image forward.

    A multiply-add is two FLOPs; a training step costs about three forward passes.
    """

    parameters: int
    multiply_adds: int


def cost(model: Classifier, image_size: int = 0, channels: int = 3) -> Cost:
    """Count from shapes alone (nothing is computed or compiled), at `image_size` pixels, else at the native size."""
    side = image_size or model.native_size
    image = jax.ShapeDtypeStruct((1, side, side, channels), model.dtype)

    def run(image: jax.Array) -> Any:
        return model.init_with_output(jax.random.key(0), image, train=False)

    jaxpr, (_, variables) = jax.make_jaxpr(run, return_shape=True)(image)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return Cost(parameters, sum(_multiply_adds(equation) for equation in _equations(jaxpr.jaxpr)))


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, those of nested calls included (a scan's body counts once)."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns"):
                yield from _equations(getattr(value, "jaxpr", value))


def _multiply_adds(equation: Any) -> int:
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        return equation.outvars[0].aval.size * (kernel.size // outputs)
    if equation.primitive.name == "dot_general":
        left, ((contracted, _), _) = equation.invars[0].aval, equation.params["dimension_numbers"]
        product = equation.outvars[0].aval.size
        for axis in contracted:
            product *= left.shape[axis]
        return product
    return 0


def _dtype(dtype: Dtype) -> Any:
    name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return jnp.dtype(name)
