"""What the devices of a compiled program tell each other, and what each moves in and out of its memory, read from HLO text."""

import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) .*\{$")
_OPERATION = re.compile(rf"^\s*(?:ROOT )?%\S+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_LINE = re.compile(r"^\s*(?:ROOT )?%(\S+) = (.*?) ([a-z][\w-]*)\((.*)$")
_OPERAND = re.compile(r"%([\w.-]+)")
_LAYOUT = re.compile(r"\b(pred|bf16|[sufc]\d+)\w*\[([\d,]*)\](\{[^}]*\})?")
_ON_CHIP = "S(1)"  # in a layout: in the vector memory, not in HBM
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy-done", "slice-done", "all-reduce-done")
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


def traffic(text: str) -> int:
    """Bytes that the operations of a TPU's or GPU's program read from HBM and write there: each operand and each result once.

    What is within loops is not counted. For a TPU, XLA's "bytes accessed" counts what stays in the vector memory as well, and what
    is brought there twice: as copied and as read.
    """
    entry = text[text.index("\nENTRY") :].splitlines()[2:]
    found: dict[str, int] = {}  # the bytes of each value that lie in HBM
    total = 0
    for line in entry[: entry.index("}")]:
        if not (matched := _LINE.match(line)):
            continue
        name, shape, kind, rest = matched.groups()
        arrays = [(_size(dtype, sides), _ON_CHIP in layout) for dtype, sides, layout in _LAYOUT.findall(shape)]
        found[name] = sum(size for size, on_chip in arrays if not on_chip)
        if kind in _FREE or '"ConcatBitcast"' in rest:
            continue
        if kind == "copy-start":  # (result, operand, flag)
            total += sum(size for size, on_chip in arrays[:2] if not on_chip)
        elif kind == "slice-start":  # ((operand), result, flag): it reads what it writes
            total += arrays[1][0] * (1 if arrays[1][1] else 2)
        else:
            total += found[name] + sum(found.get(operand, 0) for operand in _OPERAND.findall(rest.split("), ")[0]))
    return total


def _size(dtype: str, shape: str) -> int:
    bits = _BITS.get(dtype) or int(dtype[1:])
    return math.prod(int(n) for n in shape.split(",") if n) * bits // 8
