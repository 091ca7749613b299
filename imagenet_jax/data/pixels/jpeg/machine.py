"""What numba has no words for: memory by address, and an inverse DCT and colours in vectors. No bounds are checked here.

Addresses, since numba counts references to every array that it hands to an inlined function: 20 atomic operations a block, which
took as long as the decoding itself. Numba's cache only asks whether the calling file changed: whoever edits this one, or a constant
of codes.py, removes __pycache__.
"""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

BYTE, SHORT, INT, LONG, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def _at(builder: Any, base: Any, index: Any, element: Any, as_type: Any = None) -> Any:
    """The address of element `index` behind the address `base`, as a pointer to `as_type`."""
    pointer = builder.gep(builder.inttoptr(base, element.as_pointer()), [index])
    return builder.bitcast(pointer, as_type.as_pointer()) if as_type else pointer


def _loader(element: Any, result: Any, *, wide: bool = False) -> Any:
    """(address, index) -> the element there, as numba type `result`; `wide`: the eight bytes from there, the first on top."""

    @intrinsic
    def load(typing: Any, base: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if wide:
                return builder.bswap(builder.load(_at(builder, *args, element, LONG), align=1))
            return builder.load(_at(builder, *args, element))

        return result(base, index), generate

    return load


byte_at = _loader(BYTE, types.uint8)
word_at = _loader(LONG, types.uint64)
float_at = _loader(FLOAT, types.float32)
bits_at = _loader(BYTE, types.uint64, wide=True)  # the next 64 bits of a stream, from a byte on


@intrinsic
def put_float(typing: Any, base: Any, index: Any, value: Any) -> Any:
    """Store a float32 as element `index` behind the address `base`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _at(builder, *args[:2], FLOAT))
        return context.get_dummy_value()

    return types.void(base, index, types.float32), generate


@intrinsic
def copy_eight(typing: Any, source: Any, at: Any, target: Any, to: Any) -> Any:
    """Copy eight bytes from source + at to target + to, unless one of them is 0xFF; returns whether it did."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = builder.load(_at(builder, args[0], args[1], BYTE, LONG), align=1)
        ones, tops = ir.Constant(LONG, 0x0101010101010101), ir.Constant(LONG, 0x8080808080808080)
        # A byte of ~word is 0 where one of word is 0xFF; the first such borrows, and its top bit was set in word.
        borrowed = builder.and_(builder.and_(builder.sub(builder.not_(word), ones), word), tops)
        plain = builder.icmp_unsigned("==", borrowed, ir.Constant(LONG, 0))
        builder.store(word, _at(builder, args[2], args[3], BYTE, LONG), align=1)
        return plain

    return types.boolean(source, at, target, to), generate


@intrinsic
def idct(typing: Any, block: Any, pixels: Any, at: Any, stride: Any) -> Any:
    """Pixels of one block: the inverse DCT of 64 floats, plus 128, rounded and clipped, to pixels + at + y * stride + x.

    `block` and `pixels` are addresses; the block is set to zero.

    Y = C' X C with C[k, n] = s(k) cos((2n + 1) k pi / 16) (T.81, A.3.3). Both products run over whole rows of eight, the first with
    the symmetry C[k, 7 - n] = (-1)^k C[k, n]. In float32, so some pixels are a level off libjpeg's integer IDCT.
    """
    vector, ints = ir.VectorType(FLOAT, 8), ir.VectorType(INT, 8)
    cosine = [
        [(math.sqrt(1 / 8) if k == 0 else 0.5) * math.cos((2 * n + 1) * k * math.pi / 16) for n in range(8)] for k in range(8)
    ]

    def floats(values: list[float]) -> Any:
        return ir.Constant(vector, [ir.Constant(FLOAT, v) for v in values])

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fma = builder.module.declare_intrinsic("llvm.fmuladd.v8f32", (), ir.FunctionType(vector, [vector] * 3))

        def sum_of(rows: Any, factors: Any) -> Any:
            total = builder.fmul(rows[0], factors[0])
            for row, factor in zip(rows[1:], factors[1:], strict=True):
                total = builder.call(fma, [row, factor, total])
            return total

        places = [_at(builder, args[0], ir.Constant(LONG, 8 * k), FLOAT, vector) for k in range(8)]
        rows = [builder.load(place, align=4) for place in places]
        for place in places:
            builder.store(floats([0.0] * 8), place, align=4)
        half: list[Any] = [None] * 8
        for n in range(4):
            even = sum_of(rows[0::2], [floats([cosine[k][n]] * 8) for k in (0, 2, 4, 6)])
            odd = sum_of(rows[1::2], [floats([cosine[k][n]] * 8) for k in (1, 3, 5, 7)])
            half[n], half[7 - n] = builder.fadd(even, odd), builder.fsub(even, odd)
        unused = ir.Constant(vector, ir.Undefined)
        low, high = floats([0.0] * 8), floats([255.5] * 8)
        for y, row in enumerate(half):
            total = floats([128.5] * 8)  # half a level more, since the conversion cuts off
            for k in range(8):
                same = builder.shuffle_vector(row, unused, ir.Constant(ints, [ir.Constant(INT, k)] * 8))
                total = builder.call(fma, [same, floats(cosine[k]), total])
            total = builder.select(builder.fcmp_ordered("<", total, low), low, total)
            total = builder.select(builder.fcmp_ordered(">", total, high), high, total)
            levels = builder.trunc(builder.fptosi(total, ints), ir.VectorType(BYTE, 8))
            place = builder.add(args[2], builder.mul(args[3], ir.Constant(LONG, y)))
            builder.store(levels, _at(builder, args[1], place, BYTE, levels.type), align=1)
        return context.get_dummy_value()

    return types.void(block, pixels, at, stride), generate


def _all(element: Any, value: int, count: int = 16) -> Any:
    """A constant vector of `count` equal integers."""
    return ir.Constant(ir.VectorType(element, count), [ir.Constant(element, value)] * count)


def _load(builder: Any, address: Any, element: Any, count: int, ahead: int = 0) -> Any:
    """`count` elements from `address` on, or from `ahead` elements further."""
    place = _at(builder, address, ir.Constant(LONG, ahead), element, ir.VectorType(element, count))
    return builder.load(place, align=1)


def _choose(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    """The vector of the elements of a, and b behind it, at `places`."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT, len(places)), [ir.Constant(INT, p) for p in places]))


@intrinsic
def add_rows(typing: Any, near: Any, other: Any, out: Any) -> Any:
    """3 near + other for 16 bytes behind two addresses, to 16 int16 behind `out`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shorts = ir.VectorType(SHORT, 16)
        a, b = (builder.zext(_load(builder, address, BYTE, 16), shorts) for address in args[:2])
        total = builder.add(builder.mul(a, _all(SHORT, 3)), b)
        builder.store(total, _at(builder, args[2], ir.Constant(LONG, 0), SHORT, shorts), align=1)
        return context.get_dummy_value()

    return types.void(near, other, out), generate


def _full(builder: Any, sums: Any) -> Any:
    """16 samples from sums of two rows; the first belongs to the sample left of these."""
    return builder.lshr(builder.add(_load(builder, sums, SHORT, 16, 1), _all(SHORT, 2)), _all(SHORT, 2))


def _half(builder: Any, sums: Any) -> Any:
    """16 samples from 8 sums of two rows and the neighbour on either side."""
    left, middle, right = (_load(builder, sums, SHORT, 8, ahead) for ahead in range(3))
    middle = builder.add(builder.mul(middle, _all(SHORT, 3, 8)), _all(SHORT, 8, 8))
    even, odd = (builder.lshr(builder.add(middle, beside), _all(SHORT, 4, 8)) for beside in (left, right))
    return _choose(builder, even, odd, [k // 2 + 8 * (k % 2) for k in range(16)])


def _mixer(chroma: Any) -> Any:
    """(addresses of 16 luma bytes, blue and red sums, result): 16 pixels of RGB, 48 bytes (JFIF: ITU-R BT.601)."""

    @intrinsic
    def mix(typing: Any, luma: Any, blue: Any, red: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            ints, bytes_ = ir.VectorType(INT, 16), ir.VectorType(BYTE, 16)
            y = builder.shl(builder.zext(_load(builder, args[0], BYTE, 16), ints), _all(INT, 16))
            b, r = (builder.sub(builder.zext(chroma(builder, s), ints), _all(INT, 128)) for s in args[1:3])

            def colour(of_blue: float, of_red: float) -> Any:
                total = builder.add(y, _all(INT, 1 << 15))
                for sample, factor in ((b, of_blue), (r, of_red)):
                    total = builder.add(total, builder.mul(sample, _all(INT, round(factor * (1 << 16)))))
                total = builder.ashr(total, _all(INT, 16))
                total = builder.select(builder.icmp_signed("<", total, _all(INT, 0)), _all(INT, 0), total)
                total = builder.select(builder.icmp_signed(">", total, _all(INT, 255)), _all(INT, 255), total)
                return builder.trunc(total, bytes_)

            colours = colour(0, 1.402), colour(-0.344136, -0.714136), colour(1.772, 0)
            two = _choose(builder, *colours[:2], list(range(32)))
            one = _choose(builder, colours[2], ir.Constant(bytes_, ir.Undefined), list(range(32)))
            pixels = _choose(builder, two, one, [k // 3 + 16 * (k % 3) for k in range(48)])
            builder.store(pixels, _at(builder, args[3], ir.Constant(LONG, 0), BYTE, pixels.type), align=1)
            return context.get_dummy_value()

        return types.void(luma, blue, red, out), generate

    return mix


mix_full = _mixer(_full)
mix_half = _mixer(_half)


@intrinsic
def across_four(typing: Any, line: Any, offsets: Any, weights: Any, out: Any) -> Any:
    """Four pixels of a row resized across: 64 a + weight (b - a) / 4 for a pixel a at line + offset and b behind it.

    `offsets`: four int32. `weights`: 16 int16 in 1/256, four a pixel. `out`: 16 int16, a pixel is RGB and one that means nothing.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fours, bytes_, shorts = (ir.VectorType(element, count) for element, count in ((INT, 4), (BYTE, 16), (SHORT, 16)))
        places = _load(builder, args[1], INT, 4)
        first = second = ir.Constant(fours, ir.Undefined)
        for q in range(4):
            lane = ir.Constant(INT, q)
            pixel = builder.add(args[0], builder.sext(builder.extract_element(places, lane), LONG))
            first = builder.insert_element(first, builder.load(_at(builder, pixel, ir.Constant(LONG, 0), BYTE, INT), align=1), lane)
            # From the last byte of a on, so that nothing is read behind b.
            second = builder.insert_element(
                second, builder.load(_at(builder, pixel, ir.Constant(LONG, 2), BYTE, INT), align=1), lane
            )
        a, b = builder.bitcast(first, bytes_), builder.bitcast(second, bytes_)
        b = _choose(builder, b, b, [4 * (k // 4) + min(k % 4 + 1, 3) for k in range(16)])
        a, b = builder.zext(a, shorts), builder.zext(b, shorts)
        mixed = builder.mul(builder.sub(b, a), _load(builder, args[2], SHORT, 16))
        total = builder.lshr(builder.add(builder.shl(a, _all(SHORT, 8)), mixed), _all(SHORT, 2))
        builder.store(total, _at(builder, args[3], ir.Constant(LONG, 0), SHORT, shorts), align=1)
        return context.get_dummy_value()

    return types.void(line, offsets, weights, out), generate


@intrinsic
def down_eight(typing: Any, upper: Any, lower: Any, weight: Any, out: Any) -> Any:
    """Eight pixels of RGB, 24 bytes, of those of two rows by `across_four`: the lower one has `weight`, int64, in 1/32768."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        ints = ir.VectorType(INT, 32)
        a, b = (_load(builder, address, SHORT, 32) for address in args[:2])
        one = builder.insert_element(ir.Constant(a.type, ir.Undefined), builder.trunc(args[2], SHORT), ir.Constant(INT, 0))
        twice = builder.shl(builder.sub(b, a), _all(SHORT, 1, 32))
        product = builder.mul(builder.sext(twice, ints), builder.sext(_choose(builder, one, one, [0] * 32), ints))
        mixed = builder.trunc(builder.lshr(product, _all(INT, 16, 32)), a.type)  # one instruction (pmulhw)
        total = builder.add(builder.add(a, mixed), _all(SHORT, 32, 32))
        levels = builder.trunc(builder.lshr(total, _all(SHORT, 6, 32)), ir.VectorType(BYTE, 32))
        pixels = _choose(builder, levels, levels, [4 * (k // 3) + k % 3 for k in range(24)])
        builder.store(pixels, _at(builder, args[3], ir.Constant(LONG, 0), BYTE, pixels.type), align=1)
        return context.get_dummy_value()

    return types.void(upper, lower, types.int64, out), generate
