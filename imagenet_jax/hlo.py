"""What the devices of a compiled program tell each other, read from its HLO text."""

import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) .*\{$")
_OPERATION = re.compile(rf"^\s*(?:ROOT )?%\S+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+)\w*\[([\d,]*)\]")
_BITS = {"pred": 8, "bf16": 16}


class Collective(NamedTuple):
    """One collective operation: `size` in bytes is that of its result on one device, `entry` False inside a loop or branch."""

    kind: str
    size: int
    entry: bool


def collectives(text: str) -> list[Collective]:
    """The collective operations in a compiled program's text (`compiled.as_text()`), in its order.

    A TPU writes two of them in its own way: what sums and keeps a part (a reduce-scatter) as an all-reduce in a computation of
    that name, whose size is here that of the whole; and one that goes on behind others as several in their fusions, of one channel.
    """
    found: dict[tuple[str, str], Collective] = {}
    inside, entry = "", False
    for number, line in enumerate(text.splitlines()):
        if computation := _COMPUTATION.match(line):
            inside, entry = computation[1], line.startswith("ENTRY")
        elif operation := _OPERATION.match(line):
            shapes, kind, started = operation.groups()
            arrays = [_size(*array.groups()) for array in _ARRAY.finditer(shapes)]
            if started and kind != "all-reduce":  # a start gives (operands, results)
                arrays = arrays[len(arrays) // 2 :]
            if inside.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            channel = _CHANNEL.search(line) if "fus" in inside else None
            found.setdefault((kind, channel[1] if channel else f"line {number}"), Collective(kind, sum(arrays), entry))
    return list(found.values())


def _size(dtype: str, shape: str) -> int:
    bits = _BITS.get(dtype) or int(dtype[1:])
    return math.prod(int(n) for n in shape.split(",") if n) * bits // 8
