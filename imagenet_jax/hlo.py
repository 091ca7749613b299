"""What the devices of a compiled program tell each other, read from its HLO text."""

import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# The operation's name says its kind, also where a TPU wraps it in an asynchronous start, of which the "-done" is no second one.
_OPERATION = re.compile(rf"^\s*(?:ROOT )?%\S+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) .*\{$")
_ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+)\w*\[([\d,]*)\]")
_BITS = {"pred": 8, "bf16": 16}


class Collective(NamedTuple):
    """One collective operation: `size` in bytes is that of its result on one device, `entry` False inside a loop or branch."""

    kind: str
    size: int
    entry: bool


def collectives(text: str) -> list[Collective]:
    """The collective operations in a compiled program's text (`compiled.as_text()`), in its order."""
    found, entry = [], False
    for line in text.splitlines():
        if _COMPUTATION.match(line):
            entry = line.startswith("ENTRY")
        elif match := _OPERATION.match(line):
            shapes, kind, started = match.groups()
            arrays = [_size(*array.groups()) for array in _ARRAY.finditer(shapes)]
            # A start gives (operands, results) where they differ: an all-gather's results are the second half.
            half = started and kind != "all-reduce"
            found.append(Collective(kind, sum(arrays[len(arrays) // 2 :] if half else arrays), entry))
    return found


def _size(dtype: str, shape: str) -> int:
    bits = _BITS.get(dtype) or int(dtype[1:])
    return math.prod(int(n) for n in shape.split(",") if n) * bits // 8
