"""Eight numbers at a time: the few vector operations that the dense kernels' inner loops are made of.

The compiler vectorises plain loops, but not a minimum together with its index, and it surrounds short loops
with checks that cost more than the loop.  These are LLVM's portable vectors: it maps eight lanes to whatever
registers the machine has.  Nothing here rounds otherwise than the scalar operation, and a minimum does not
depend on the order of its operands, so that results are the same bits everywhere.

Vectors are local variables of one compiled function; an array holds eight elements from the place that is
loaded or stored.  numba's cache does not watch this file: after a change, touch the kernels that use it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, models, register_model

__all__ = [
    "WIDTH",
    "across",
    "add",
    "aligned",
    "bits",
    "both",
    "choose",
    "either",
    "enter",
    "every",
    "fill",
    "fill_index",
    "first_of",
    "further",
    "furthest",
    "gather",
    "greatest",
    "lane_of",
    "lanes",
    "least",
    "least_of",
    "less",
    "load",
    "load_real",
    "multiply",
    "pick",
    "same",
    "size",
    "spread",
    "store",
    "subtract",
    "total",
]

WIDTH = 8
_operation: Any = intrinsic


class _Lanes(types.Type):
    """Eight doubles, eight int64 or eight truth values."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(name=f"Lanes({kind})")


_ELEMENT = {"real": ir.DoubleType(), "index": ir.IntType(64), "truth": ir.IntType(1)}
_REAL, _INDEX, _TRUTH = _Lanes("real"), _Lanes("index"), _Lanes("truth")
_OF = {types.float64: _REAL, types.int64: _INDEX}


def _vector(kind: str) -> ir.VectorType:
    return ir.VectorType(_ELEMENT[kind], WIDTH)


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes_type: _Lanes) -> None:
        super().__init__(manager, lanes_type, _vector(lanes_type.kind))


def _call(builder: Any, name: str, result: Any, arguments: list[Any], flags: tuple[str, ...] = ()) -> Any:
    """Call the LLVM intrinsic ``name`` of vectors like the first argument."""
    kind = arguments[0].type
    suffix = f"v{WIDTH}" + ("f64" if kind.element == ir.DoubleType() else f"i{kind.element.width}")
    signature = ir.FunctionType(result, [a.type for a in arguments])
    function = builder.module.globals.get(f"{name}.{suffix}") or ir.Function(
        builder.module, signature, f"{name}.{suffix}"
    )
    return builder.call(function, arguments, fastmath=flags)


def _splat(builder: Any, scalar: Any) -> Any:
    empty = ir.Constant(ir.VectorType(scalar.type, WIDTH), ir.Undefined)
    one = builder.insert_element(empty, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))


def _place(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """The address of eight elements of ``array`` from ``offset``."""
    data = context.make_array(array_type)(context, builder, array).data
    kind = _vector(_OF[array_type.dtype].kind)
    return builder.bitcast(builder.gep(data, [offset]), ir.PointerType(kind))


@_operation
def load(typing, array, offset):  # type: ignore[no-untyped-def]
    """array[offset : offset + 8] of a float64 or int64 array, or of a float32 one, as doubles."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if array.dtype != types.float32:
            return builder.load(_place(context, builder, array, *arguments), align=8)
        data = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        kind = ir.VectorType(ir.FloatType(), WIDTH)
        single = builder.load(builder.bitcast(data, ir.PointerType(kind)), align=4)
        return builder.fpext(single, _vector("real"))

    return (_REAL if array.dtype == types.float32 else _OF[array.dtype])(array, types.int64), generate


@_operation
def load_real(typing, array, offset):  # type: ignore[no-untyped-def]
    """array[offset : offset + 8] of a float64 or float32 array, as doubles."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(array)(context, builder, arguments[0]).data
        kind = ir.PointerType(ir.VectorType(data.type.pointee, WIDTH))
        size = array.dtype.bitwidth // 8
        vector = builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), kind), align=size)
        return vector if size == 8 else builder.fpext(vector, _vector("real"))

    return _REAL(array, types.int64), generate


@_operation
def across(typing, array, offset, stride):  # type: ignore[no-untyped-def]
    """array[offset], array[offset + stride], ..., eight of them: a column of eight rows of a matrix."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        vector = ir.Constant(_vector(_OF[array.dtype].kind), ir.Undefined)
        for lane in range(WIDTH):
            element = builder.load(place, align=8)
            vector = builder.insert_element(vector, element, ir.IntType(32)(lane))
            place = builder.gep(place, [arguments[2]])  # one stride to keep at hand, not seven
        return vector

    return _OF[array.dtype](array, types.int64, types.int64), generate


@_operation
def aligned(typing, array):  # type: ignore[no-untyped-def]
    """The first place of a float64 array at a multiple of 64 bytes: vectors across cache lines are slow."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(array)(context, builder, arguments[0]).data
        number = ir.IntType(64)
        short = builder.and_(builder.neg(builder.ptrtoint(data, number)), number(63))
        return builder.lshr(short, number(3))

    return types.int64(array), generate


@_operation
def store(typing, array, offset, value):  # type: ignore[no-untyped-def]
    """array[offset : offset + 8] = value."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.store(arguments[2], _place(context, builder, array, *arguments[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), generate


@_operation
def spread(typing, array, offset, stride, value):  # type: ignore[no-untyped-def]
    """array[offset], array[offset + stride], ... = value: what ``across`` reads, written."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        for lane in range(WIDTH):
            far = builder.mul(arguments[2], ir.IntType(64)(lane))
            element = builder.extract_element(arguments[3], ir.IntType(32)(lane))
            builder.store(element, builder.gep(place, [far]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, value), generate


@_operation
def fill(typing, number):  # type: ignore[no-untyped-def]
    """Eight times a float."""
    return _REAL(types.float64), lambda context, builder, signature, arguments: _splat(builder, arguments[0])


@_operation
def fill_index(typing, number):  # type: ignore[no-untyped-def]
    """Eight times an integer."""
    return _INDEX(types.int64), lambda context, builder, signature, arguments: _splat(builder, arguments[0])


@_operation
def lanes(typing):  # type: ignore[no-untyped-def]
    """The integers 0 to 7."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return ir.Constant(_vector("index"), list(range(WIDTH)))

    return _INDEX(), generate


@_operation
def add(typing, a, b):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return (builder.fadd if a == _REAL else builder.add)(*arguments)

    return a(a, b), generate


@_operation
def subtract(typing, a, b):  # type: ignore[no-untyped-def]
    return _REAL(a, b), lambda context, builder, signature, arguments: builder.fsub(*arguments)


@_operation
def multiply(typing, a, b):  # type: ignore[no-untyped-def]
    return _REAL(a, b), lambda context, builder, signature, arguments: builder.fmul(*arguments)


@_operation
def size(typing, a):  # type: ignore[no-untyped-def]
    """|a|."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _call(builder, "llvm.fabs", _vector("real"), list(arguments))

    return _REAL(a), generate


@_operation
def least(typing, a, b):  # type: ignore[no-untyped-def]
    """min(a, b), lane by lane, of numbers that are not NaN."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _call(builder, "llvm.minnum", _vector("real"), list(arguments), ("nnan", "nsz"))

    return _REAL(a, b), generate


@_operation
def greatest(typing, a, b):  # type: ignore[no-untyped-def]
    """max(a, b), lane by lane, of numbers that are not NaN."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _call(builder, "llvm.maxnum", _vector("real"), list(arguments), ("nnan", "nsz"))

    return _REAL(a, b), generate


@_operation
def less(typing, a, b):  # type: ignore[no-untyped-def]
    """a < b; False where one is NaN."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return (builder.fcmp_ordered if a == _REAL else builder.icmp_signed)("<", *arguments)

    return _TRUTH(a, b), generate


@_operation
def same(typing, a, b):  # type: ignore[no-untyped-def]
    """a == b."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if a == _REAL:
            return builder.fcmp_ordered("==", *arguments)
        return builder.icmp_signed("==", *arguments)

    return _TRUTH(a, b), generate


@_operation
def both(typing, a, b):  # type: ignore[no-untyped-def]
    """a and b, of truth values."""
    return _TRUTH(a, b), lambda context, builder, signature, arguments: builder.and_(*arguments)


@_operation
def either(typing, a, b):  # type: ignore[no-untyped-def]
    """a or b, of truth values."""
    return _TRUTH(a, b), lambda context, builder, signature, arguments: builder.or_(*arguments)


@_operation
def every(typing, a):  # type: ignore[no-untyped-def]
    """Are eight truth values all true?"""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _call(builder, "llvm.vector.reduce.and", ir.IntType(1), list(arguments))

    return types.boolean(a), generate


@_operation
def choose(typing, where, a, b):  # type: ignore[no-untyped-def]
    """a where true, else b."""
    return a(where, a, b), lambda context, builder, signature, arguments: builder.select(*arguments)


@_operation
def least_of(typing, a):  # type: ignore[no-untyped-def]
    """The least of eight numbers that are not NaN."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _call(builder, "llvm.vector.reduce.fmin", ir.DoubleType(), list(arguments), ("nnan", "nsz"))

    return types.float64(a), generate


@_operation
def first_of(typing, where, index):  # type: ignore[no-untyped-def]
    """The least of the eight ``index`` (not negative) where true; 2^62 where nothing is."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        far = ir.Constant(_vector("index"), [1 << 62] * WIDTH)
        chosen = builder.select(arguments[0], arguments[1], far)
        return _call(builder, "llvm.vector.reduce.umin", ir.IntType(64), [chosen])

    return types.int64(where, index), generate


@_operation
def enter(typing, a, number):  # type: ignore[no-untyped-def]
    """Each lane takes what the lane before it holds; the number enters at the first."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        order = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [WIDTH, *range(WIDTH - 1)])
        return builder.shuffle_vector(arguments[0], _splat(builder, arguments[1]), order)

    return a(a, types.float64 if a == _REAL else types.int64), generate


@_operation
def lane_of(typing, a, lane):  # type: ignore[no-untyped-def]
    """The number in one lane."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.extract_element(*arguments)

    return (types.float64 if a == _REAL else types.int64)(a, types.int64), generate


@_operation
def bits(typing, where):  # type: ignore[no-untyped-def]
    """Eight truth values as a byte, the first as its lowest bit."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.IntType(8))

    return types.uint8(where), generate


@_operation
def pick(typing, array, offsets, shift):  # type: ignore[no-untyped-def]
    """array[offsets + shift] of a float64 or float32 array, lane by lane, as doubles."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(array)(context, builder, arguments[0]).data
        place = builder.gep(data, [arguments[2]])
        kind = ir.VectorType(data.type.pointee, WIDTH)
        vector = ir.Constant(kind, ir.Undefined)
        for lane in range(WIDTH):
            number = ir.IntType(32)(lane)
            element = builder.load(builder.gep(place, [builder.extract_element(arguments[1], number)]))
            vector = builder.insert_element(vector, element, number)
        return vector if array.dtype == types.float64 else builder.fpext(vector, _vector("real"))

    return _REAL(array, offsets, types.int64), generate


@_operation
def gather(typing, array, places, offset):  # type: ignore[no-untyped-def]
    """array[places[offset]], array[places[offset + 1]], ..., eight of them; no place is negative."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(array)(context, builder, arguments[0]).data
        first = builder.gep(context.make_array(places)(context, builder, arguments[1]).data, [arguments[2]])
        vector = ir.Constant(_vector("real"), ir.Undefined)
        for lane in range(WIDTH):
            number = ir.IntType(32)(lane)
            place = builder.zext(builder.load(builder.gep(first, [number])), ir.IntType(64))
            vector = builder.insert_element(vector, builder.load(builder.gep(data, [place])), number)
        return vector

    return _REAL(array, places, types.int64), generate


@_operation
def further(typing, best, a):  # type: ignore[no-untyped-def]
    """Lane by lane the bits of |a|, or ``best`` where that is more. Bits of doubles are ordered as they are
    themselves, and those of NaN come last: start from fill_index(0)."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        magnitude = builder.bitcast(
            _call(builder, "llvm.fabs", _vector("real"), [arguments[1]]), _vector("index")
        )
        return builder.select(builder.icmp_signed(">", magnitude, arguments[0]), magnitude, arguments[0])

    return _INDEX(best, a), generate


@_operation
def furthest(typing, best):  # type: ignore[no-untyped-def]
    """The largest magnitude of what ``further`` has seen, NaN where it saw one."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        bits = _call(builder, "llvm.vector.reduce.umax", ir.IntType(64), list(arguments))
        return builder.bitcast(bits, ir.DoubleType())

    return types.float64(best), generate


@_operation
def total(typing, a):  # type: ignore[no-untyped-def]
    """The sum of eight numbers: halves, quarters, eighths."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        parts = [builder.extract_element(arguments[0], ir.IntType(32)(lane)) for lane in range(WIDTH)]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [builder.fadd(parts[i], parts[i + half]) for i in range(half)]
        return parts[0]

    return types.float64(a), generate
