"""A program of ours as ONNX: its jaxpr, operation by operation, with the batch left open.

Only the operations that the zoo's models are made of are known; any other is refused by name. What depends on weights alone is
computed here and stored. ONNX convolves channels first: it stands between transpositions, which runtimes move and cancel.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import Literal
from onnx import helper, numpy_helper

from imagenet_jax.errors import UserError

OPSET, IR_VERSION = 18, 8  # of ONNX 1.13, 2022: every runtime in use reads them
_ONE = np.asarray(1, np.float32)
_CALLS = ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat", "remat2")  # of a jaxpr, once
MAX_BYTES = (1 << 31) - (1 << 20)  # protobuf's limit for a file, less room for the graph


class _Tensor(NamedTuple):
    """A value by its name in the graph. `shape` may have 1 where the jaxpr has more: ONNX broadcasts, so we put that off."""

    name: str
    shape: tuple[Any, ...]  # numbers, or jax's symbol for the batch


_Value = _Tensor | np.ndarray  # the latter where it is known now


def convert(function: Callable[[jax.Array], jax.Array], images: jax.ShapeDtypeStruct) -> bytes:
    """The function as a serialized ONNX model of one input "images" and one output "probabilities".

    `images` has a symbolic first dimension (jax.export.symbolic_shape), and so has the result; both keep their dtypes. Raises
    UserError for an operation that is not known here, and where the file would be larger than ONNX allows.
    """
    closed = jax.make_jaxpr(function)(images)
    graph = _Graph()
    (result,) = graph.run(closed.jaxpr, [np.asarray(c) for c in closed.consts], [_Tensor("images", images.shape)])
    (out,) = closed.out_avals
    graph.nodes.append(helper.make_node("Identity", [graph.name(graph.full(result, out.shape))], ["probabilities"]))
    size = sum(math.prod(tensor.dims) * 4 for tensor in graph.constants)
    if size > MAX_BYTES:
        raise UserError(f"The model's {size / 1e9:.1f} GB are more than the 2.1 GB that an ONNX file can hold.")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "imagenet_jax", [_declared("images", images)], [_declared("probabilities", out)], graph.constants
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="imagenet_jax",
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _declared(name: str, aval: Any) -> onnx.ValueInfoProto:
    shape = [d if isinstance(d, int) else "batch" for d in aval.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype)), shape)


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def run(self, jaxpr: Any, consts: Sequence[_Value], inputs: Sequence[_Value]) -> list[_Value]:
        """Add a jaxpr's operations; the values of its outputs."""
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

        def read(atom: Any) -> _Value:
            if not isinstance(atom, Literal):
                return known[atom]
            aval: Any = atom.aval
            return np.asarray(atom.val, aval.dtype)

        for equation in jaxpr.eqns:
            known.update(zip(equation.outvars, self._results(equation, [read(atom) for atom in equation.invars]), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _results(self, equation: Any, inputs: list[_Value]) -> list[_Value]:
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            inner = params.get("jaxpr", params.get("call_jaxpr"))
            consts = [np.asarray(c) for c in getattr(inner, "consts", ())]
            return self.run(getattr(inner, "jaxpr", inner), consts, inputs)
        shapes = [v.aval.shape for v in equation.outvars]
        if all(isinstance(x, np.ndarray) for x in inputs) and all(isinstance(d, int) for shape in shapes for d in shape):
            found = equation.primitive.bind(*map(jnp.asarray, inputs), **params)
            return [np.asarray(x) for x in (found if equation.primitive.multiple_results else [found])]
        if name not in (*_ELEMENTWISE, *_OPERATIONS, "broadcast_in_dim"):
            raise UserError(f"The model uses {name}, for which there is no translation to ONNX here.")
        (out,) = [v.aval for v in equation.outvars]
        if name == "broadcast_in_dim":
            return [self._put_off(inputs[0], out.shape, params["broadcast_dimensions"])]
        if name in _ELEMENTWISE:
            return [_Tensor(_ELEMENTWISE[name](self, inputs, params), _joined([x.shape for x in inputs], len(out.shape)))]
        whole = [self.full(x, atom.aval.shape) for x, atom in zip(inputs, equation.invars, strict=True)]
        return [_Tensor(_OPERATIONS[name](self, whole, params, out), out.shape)]

    def add(self, operation: str, *inputs: _Value | str, **attributes: Any) -> str:
        """Add a node of one output; the output's name."""
        output = f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, [self.name(x) for x in inputs], [output], **attributes))
        return output

    def name(self, value: _Value | str) -> str:
        """A value's name; what is known becomes a constant of the graph."""
        if isinstance(value, str):
            return value
        if isinstance(value, _Tensor):
            return value.name
        self.constants.append(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), f"constant_{len(self.constants)}")
        )
        return self.constants[-1].name

    def full(self, value: _Value, shape: tuple[Any, ...]) -> _Value:
        """The value with all that its shape says, where a broadcast had been put off."""
        if value.shape == shape:
            return value
        wanted: _Value | str = np.asarray([d if isinstance(d, int) else 1 for d in shape], np.int64)
        if not isinstance(shape[0], int):
            batch = self.add("Shape", "images", start=0, end=1)
            wanted = self.add("Concat", batch, wanted[1:], axis=0)
        return _Tensor(self.add("Expand", value, wanted), shape)

    def reshape(self, value: _Value | str, shape: Sequence[Any]) -> str:
        """To `shape`, of whose dimensions one may be the batch."""
        return self.add("Reshape", value, np.asarray([d if isinstance(d, int) else -1 for d in shape], np.int64))

    def transpose(self, value: _Value, axes: Sequence[int]) -> _Value:
        """The axes in this order; of what is known, at once."""
        if isinstance(value, np.ndarray):
            return value.transpose(axes)
        return _Tensor(self.add("Transpose", value, perm=list(axes)), tuple(value.shape[a] for a in axes))

    def _put_off(self, value: _Value, shape: tuple[Any, ...], where: Sequence[int]) -> _Value:
        """broadcast_in_dim: only the dimensions of length 1, which ONNX needs to broadcast by itself."""
        ones: list[Any] = [1] * len(shape)
        for axis, length in zip(where, value.shape, strict=True):
            ones[axis] = length
        if isinstance(value, np.ndarray):
            return _Tensor(self.name(value.reshape(ones)), tuple(ones))
        return value if tuple(ones) == value.shape else _Tensor(self.reshape(value, ones), tuple(ones))


def _joined(shapes: list[tuple[Any, ...]], rank: int) -> tuple[Any, ...]:
    """What elementwise operands of these shapes become together."""
    aligned = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((d for d in dims if not (isinstance(d, int) and d == 1)), 1) for dims in zip(*aligned, strict=True))


def _one(operation: str) -> Callable[..., str]:
    """An operation that ONNX has."""
    return lambda graph, inputs, params: graph.add(operation, *inputs)


_ELEMENTWISE: dict[str, Callable[[_Graph, list[_Value], dict[str, Any]], str]] = {
    "add": _one("Add"),
    "sub": _one("Sub"),
    "mul": _one("Mul"),
    "div": _one("Div"),
    "max": _one("Max"),
    "min": _one("Min"),
    "neg": _one("Neg"),
    "exp": _one("Exp"),
    "sqrt": _one("Sqrt"),
    "logistic": _one("Sigmoid"),
    "gt": _one("Greater"),
    "copy": _one("Identity"),
    "stop_gradient": _one("Identity"),
    "square": lambda graph, inputs, params: graph.add("Mul", inputs[0], inputs[0]),
    "rsqrt": lambda graph, inputs, params: graph.add("Reciprocal", graph.add("Sqrt", inputs[0])),
    "erfc": lambda graph, inputs, params: graph.add("Sub", _ONE, graph.add("Erf", inputs[0])),
    "select_n": lambda graph, inputs, params: graph.add("Where", inputs[0], inputs[2], inputs[1]),
    "convert_element_type": lambda graph, inputs, params: graph.add(
        "Cast", inputs[0], to=helper.np_dtype_to_tensor_dtype(np.dtype(params["new_dtype"]))
    ),
}


def _convolution(graph: _Graph, inputs: list[_Value], params: dict[str, Any], out: Any) -> str:
    images, kernel, result = params["dimension_numbers"]
    if params["batch_group_count"] != 1 or any(d != 1 for d in params["lhs_dilation"]):
        raise UserError("The model uses a transposed or batch-grouped convolution, for which there is no translation to ONNX here.")
    y = graph.add(
        "Conv",
        graph.transpose(inputs[0], images),
        graph.transpose(inputs[1], kernel),
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        pads=_pads(params["padding"]),
        group=params["feature_group_count"],
    )
    return graph.add("Transpose", y, perm=np.argsort(result).tolist())


def _product(graph: _Graph, inputs: list[_Value], params: dict[str, Any], out: Any) -> str:
    """dot_general: its batch axes come first in the result, then the left operand's others, then the right's."""
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    a = [next(letters) for _ in inputs[0].shape]
    b = [next(letters) for _ in inputs[1].shape]
    for i, j in zip((*left, *left_batch), (*right, *right_batch), strict=True):
        b[j] = a[i]
    batch = [a[i] for i in left_batch]
    rest = [letter for letter in (*a, *b) if (letter in a) != (letter in b)]
    return graph.add("Einsum", *inputs, equation=f"{''.join(a)},{''.join(b)}->{''.join([*batch, *rest])}")


def _window(operation: str) -> Callable[..., str]:
    """Pooling over the spatial axes of images with channels last."""

    def pool(graph: _Graph, inputs: list[_Value], params: dict[str, Any], out: Any) -> str:
        size = params["window_dimensions"]
        dilations = (*params["base_dilation"], *params["window_dilation"])
        if len(size) != 4 or (size[0], size[3]) != (1, 1) or any(d != 1 for d in dilations):
            raise UserError(f"The model pools over {size}, for which there is no translation to ONNX here.")
        average = {"count_include_pad": 1} if operation == "AveragePool" else {}
        y = graph.add(
            operation,
            graph.transpose(inputs[0], (0, 3, 1, 2)),
            kernel_shape=list(size[1:3]),
            strides=list(params["window_strides"][1:3]),
            pads=_pads(params["padding"][1:3]),
            **average,
        )
        y = graph.add("Mul", y, np.asarray(math.prod(size), out.dtype)) if average else y
        return graph.add("Transpose", y, perm=[0, 2, 3, 1])

    return pool


def _gather(graph: _Graph, inputs: list[_Value], params: dict[str, Any], out: Any) -> str:
    """One block at a fixed place, which is what x[:, 0] and x[:, 1:] become where the batch is open."""
    x, place = inputs
    axes = params["dimension_numbers"].start_index_map
    if not isinstance(place, np.ndarray) or place.ndim != 1:
        raise UserError("The model gathers in a way for which there is no translation to ONNX here.")
    ends = [start + params["slice_sizes"][axis] for start, axis in zip(place.tolist(), axes, strict=True)]
    return graph.reshape(graph.add("Slice", x, *(np.asarray(n, np.int64) for n in (place, ends, axes))), out.shape)


def _slice(graph: _Graph, inputs: list[_Value], params: dict[str, Any], out: Any) -> str:
    """Whatever is open is whole."""
    axes = [i for i, end in enumerate(params["limit_indices"]) if isinstance(end, int)]
    steps = params["strides"] or (1,) * len(out.shape)
    limits = [[numbers[i] for i in axes] for numbers in (params["start_indices"], params["limit_indices"])]
    return graph.add("Slice", inputs[0], *(np.asarray(n, np.int64) for n in (*limits, axes, [steps[i] for i in axes])))


def _pad(graph: _Graph, inputs: list[_Value], params: dict[str, Any], out: Any) -> str:
    low, high, inner = zip(*params["padding_config"], strict=True)
    if any(inner) or min(*low, *high) < 0:
        raise UserError("The model pads between values or less than nothing, for which there is no translation to ONNX here.")
    return graph.add("Pad", inputs[0], np.asarray((*low, *high), np.int64), inputs[1])


def _reduction(operation: str) -> Callable[..., str]:
    return lambda graph, inputs, params, out: graph.add(operation, inputs[0], np.asarray(params["axes"], np.int64), keepdims=0)


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    """ONNX wants all beginnings, then all ends."""
    return [low for low, _ in padding] + [high for _, high in padding]


_OPERATIONS: dict[str, Callable[[_Graph, list[Any], dict[str, Any], Any], str]] = {
    "concatenate": lambda graph, inputs, params, out: graph.add("Concat", *inputs, axis=params["dimension"]),
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "gather": _gather,
    "pad": _pad,
    "reduce_max": _reduction("ReduceMax"),
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_window_max": _window("MaxPool"),
    "reduce_window_sum": _window("AveragePool"),
    "reshape": lambda graph, inputs, params, out: graph.reshape(inputs[0], out.shape),
    "slice": _slice,
    "transpose": lambda graph, inputs, params, out: graph.add("Transpose", inputs[0], perm=list(params["permutation"])),
}
