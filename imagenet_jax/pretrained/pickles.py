"""A reader of pickles that can build plain containers and nothing else.

Python's own unpickler imports what a pickle names and calls it; restricting that still leaves a C machine that allocates
what the pickle asks for. This one knows the few opcodes that torch.save writes, imports nothing, and calls only the functions it is
given. Everything else is refused with its name. No step recurses, so depth cannot exhaust the stack; sizes are bounded by the
stream, which the caller bounds.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

_MARK = object()
_NONE = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = (  # opcodes whose argument is the value
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING",
)  # fmt: skip
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load(stream: BinaryIO, known: Mapping[str, Any], persistent: Callable[[Any], Any]) -> Any:
    """The object of the pickle at the stream's position, which is left behind its end.

    `known` maps "module.name" to what stands for it: a function of ours, or a constant. `persistent` makes the object of a
    persistent id. Raises ValueError for what is refused, with its name, and for a damaged pickle.
    """
    machine = _Machine(known, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"damaged pickle ({type(error).__name__}: {error})") from error
    raise ValueError("damaged pickle: it does not end")


class _Machine:
    def __init__(self, known: Mapping[str, Any], persistent: Callable[[Any], Any]):
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._known, self._persistent = known, persistent

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _VALUES:
            stack.append(argument)
        elif opcode in _NONE:
            stack.append(_NONE[opcode])
        elif opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            stack[-count:] = [tuple(stack[-count:])]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif opcode not in ("PROTO", "FRAME"):
            self._build(opcode, argument)

    def _build(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        match opcode:
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "APPEND" | "APPENDS":
                items = [stack.pop()] if opcode == "APPEND" else self._since_mark()
                _as(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = [stack.pop(-2), stack.pop()] if opcode == "SETITEM" else self._since_mark()
                self._set_items(_as(dict, stack[-1]), items)
            case "GLOBAL":
                stack.append(self._find(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = _as(str, stack.pop()), _as(str, stack.pop())
                stack.append(self._find(f"{module}.{name}"))
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case "REDUCE":
                arguments, function = _as(tuple, stack.pop()), stack.pop()
                if not callable(function):  # all that can be called here came out of `known`
                    raise ValueError(f"refused: it calls a {type(function).__name__}")
                stack.append(function(*arguments))
            case "BUILD":
                stack.pop()  # attributes, such as a state dict's _metadata: not wanted
                _as(dict, stack[-1])
            case _:
                raise ValueError(f"refused: pickle opcode {opcode}, which tensors and plain containers do not need")

    def _since_mark(self) -> list[Any]:
        stack, items = self.stack, []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _set_items(self, target: dict[Any, Any], items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):  # to hash a tuple is to recurse into it
                raise ValueError(f"refused: a {type(key).__name__} as a key")
            target[key] = value

    def _find(self, name: str) -> Any:
        if name not in self._known:
            raise ValueError(
                f"refused: it asks for {name!r}, which is neither a tensor nor a plain container; nothing was executed"
            )
        return self._known[name]


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"damaged pickle: a {type(value).__name__} where a {kind.__name__} must be")
    return value
