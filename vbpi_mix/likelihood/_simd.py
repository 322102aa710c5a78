# mypy: disable-error-code="no-untyped-def, call-arg"
"""Vectors of numbers inside compiled kernels: several neighbouring array elements handled by one instruction.

The kernels could leave vectorisation to LLVM, but its loop vectoriser gives up where many arrays might
overlap, and whether it does changes between versions. Here a kernel says ``load(array, index)`` and gets a
value of several numbers that it may add, multiply and store; LLVM turns these into the widest
instructions the processor has. The values live in registers only: they cannot be passed to or from Python.

Multiplications and additions may be fused (``contract``); nothing else about their order or about
infinities is relaxed, so results do not depend on how LLVM optimises beyond that.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, overload, register_model

VECTOR_BYTES = 32
_FUSE = ("contract",)
_LN2 = 0.6931471805599453
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
"""Logarithm of two in two parts, of which the first has zeros enough for exact products with exponents."""
_SHIFT = 1.5 * 2.0**52
"""Adding it rounds to an integer."""
_LOWEST = -700.0
"""Exponents below are as good as it."""
_EXPONENT = {64: (52, 1023, 0x3FE6A09E667F3BCD), 32: (23, 127, 0x3F3504F3)}
"""Of a floating-point type of so many bits: mantissa bits, exponent bias, bits of sqrt(1/2)."""


class Vector(types.Type):
    """Numba type of a vector of `lanes` floating-point numbers."""

    def __init__(self, element: types.Float) -> None:
        self.element = element
        self.lanes = 8 * VECTOR_BYTES // element.bitwidth
        super().__init__(name=f"Vector({element} x {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        element = manager.lookup(vector.element).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _integers(vector: Vector) -> tuple[ir.IntType, ir.VectorType]:
    element = ir.IntType(vector.element.bitwidth)
    return element, ir.VectorType(element, vector.lanes)


def _constant(vector_type: ir.VectorType, value: int | float) -> ir.Constant:
    return ir.Constant(vector_type, [value] * vector_type.count)


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    address = builder.gep(array.data, [args[1]])
    vector = context.get_value_type(Vector(signature.args[0].dtype))
    return builder.bitcast(address, vector.as_pointer()), signature.args[0].dtype.bitwidth // 8


def _splat(builder: Any, value: Any, vector_type: ir.VectorType) -> Any:
    zero = ir.Constant(ir.IntType(32), 0)
    single = builder.insert_element(ir.Constant(vector_type, ir.Undefined), value, zero)
    order = ir.Constant(ir.VectorType(ir.IntType(32), vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(single, ir.Constant(vector_type, ir.Undefined), order)


@intrinsic
def num_lanes(typing_context, array):
    """Numbers in a vector of an array's element type, known when the kernel is compiled."""
    vector = Vector(array.dtype)

    def code(context, builder, signature, args):
        return ir.Constant(ir.IntType(64), vector.lanes)

    return types.intp(array), code


@intrinsic
def load(typing_context, array, index):
    """Vector of the elements of a contiguous array from a position of its flat memory on."""

    def code(context, builder, signature, args):
        pointer, alignment = _pointer(context, builder, signature, args)
        return builder.load(pointer, align=alignment)

    return Vector(array.dtype)(array, types.intp), code


@intrinsic
def store(typing_context, array, index, value):
    """Write a vector to a contiguous array from a position of its flat memory on."""

    def code(context, builder, signature, args):
        pointer, alignment = _pointer(context, builder, signature, args)
        builder.store(args[2], pointer, align=alignment)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), code


@intrinsic
def broadcast(typing_context, array, index):
    """Vector whose numbers all are the element of a contiguous array at a position of its flat memory."""

    def code(context, builder, signature, args):
        array_value = context.make_array(signature.args[0])(context, builder, args[0])
        value = builder.load(builder.gep(array_value.data, [args[1]]))
        return _splat(builder, value, context.get_value_type(signature.return_type))

    return Vector(array.dtype)(array, types.intp), code


@intrinsic
def fours(typing_context, array, first, second):
    """Vector of the four elements from `first` on, followed by those from `second` on where eight have room.

    Positions are those of a contiguous array's flat memory.
    """
    vector = Vector(array.dtype)

    def code(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        four = ir.VectorType(context.get_value_type(vector.element), 4)
        parts = [
            builder.load(
                builder.bitcast(builder.gep(data, [at]), four.as_pointer()),
                align=vector.element.bitwidth // 8,
            )
            for at in args[1 : 1 + vector.lanes // 4]
        ]
        if len(parts) == 1:
            return parts[0]
        order = ir.Constant(ir.VectorType(ir.IntType(32), 8), list(range(8)))
        return builder.shuffle_vector(*parts, order)

    return vector(array, types.intp, types.intp), code


@intrinsic
def store_four(typing_context, array, index, value):
    """Write a float64 vector to four elements of a contiguous array of either type."""

    def code(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        four = ir.VectorType(context.get_value_type(array.dtype), 4)
        value = args[2] if array.dtype == types.float64 else builder.fptrunc(args[2], four)
        address = builder.bitcast(builder.gep(data, [args[1]]), four.as_pointer())
        builder.store(value, address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), code


@intrinsic
def _interleave(typing_context, a, b, part):
    """Of each four elements of two vectors, numbers 0, 1 (part 0) or 2, 3 (part 1), of a and b in turn."""

    def code(context, builder, signature, args):
        order = [
            four + 2 * part.literal_value + pair + side
            for four in range(0, a.lanes, 4)
            for pair in (0, 1)
            for side in (0, a.lanes)
        ]
        return builder.shuffle_vector(*args[:2], ir.Constant(ir.VectorType(ir.IntType(32), a.lanes), order))

    return (a(a, a, part), code) if isinstance(part, types.IntegerLiteral) else None


@njit(forceinline=True)
def transpose_fours(a, b, c, d):
    """Four vectors as rows of a matrix [4, 4] each four of their elements: the columns."""
    even_low, even_high = _interleave(a, c, 0), _interleave(a, c, 1)
    odd_low, odd_high = _interleave(b, d, 0), _interleave(b, d, 1)
    return (
        _interleave(even_low, odd_low, 0),
        _interleave(even_low, odd_low, 1),
        _interleave(even_high, odd_high, 0),
        _interleave(even_high, odd_high, 1),
    )


@intrinsic
def _add(typing_context, a, b):
    return a(a, a), lambda context, builder, signature, args: builder.fadd(*args, flags=_FUSE)


@intrinsic
def _subtract(typing_context, a, b):
    return a(a, a), lambda context, builder, signature, args: builder.fsub(*args, flags=_FUSE)


@intrinsic
def _multiply(typing_context, a, b):
    return a(a, a), lambda context, builder, signature, args: builder.fmul(*args, flags=_FUSE)


@intrinsic
def _divide(typing_context, a, b):
    return a(a, a), lambda context, builder, signature, args: builder.fdiv(*args)


def _overload_operator(function: Any, implementation: Any) -> None:
    @overload(function)
    def typed(a, b):
        if isinstance(a, Vector) and a == b:
            return implementation
        return None


_overload_operator(operator.add, lambda a, b: _add(a, b))
_overload_operator(operator.sub, lambda a, b: _subtract(a, b))
_overload_operator(operator.mul, lambda a, b: _multiply(a, b))
_overload_operator(operator.truediv, lambda a, b: _divide(a, b))


@intrinsic
def constant(typing_context, like, value):
    """Vector of the type of `like` whose numbers all are a float64 value."""

    def code(context, builder, signature, args):
        number = context.cast(builder, args[1], types.float64, like.element)
        return _splat(builder, number, context.get_value_type(like))

    return like(like, types.float64), code


@intrinsic
def zeros(typing_context, array):
    """Vector of zeros of an array's element type."""
    vector = Vector(array.dtype)

    def code(context, builder, signature, args):
        return _constant(context.get_value_type(vector), 0.0)

    return vector(array), code


@intrinsic
def maximum(typing_context, a, b):
    """Larger of two vectors, number by number."""

    def code(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, a), code


@intrinsic
def minimum(typing_context, a, b):
    """Smaller of two vectors, number by number."""

    def code(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return a(a, a), code


@intrinsic
def choose_small(typing_context, a, bound, small, large):
    """`small` where the absolute value of a is below a bound, else `large`."""

    def code(context, builder, signature, args):
        value_type = context.get_value_type(a)
        limit = _splat(builder, args[1], value_type)
        above = builder.fcmp_ordered(">", args[0], builder.fneg(limit))
        below = builder.fcmp_ordered("<", args[0], limit)
        return builder.select(builder.and_(above, below), args[2], args[3])

    return a(a, types.float64, a, a), code


@intrinsic
def horizontal_sum(typing_context, a):
    """Sum of the numbers of a vector as a float64, in a fixed order: halves onto each other."""

    def code(context, builder, signature, args):
        value, lanes = args[0], a.lanes
        while lanes > 1:
            lanes //= 2
            undefined = ir.Constant(value.type, ir.Undefined)
            index_type = ir.VectorType(ir.IntType(32), lanes)
            low = builder.shuffle_vector(value, undefined, ir.Constant(index_type, list(range(lanes))))
            high = builder.shuffle_vector(
                value, undefined, ir.Constant(index_type, list(range(lanes, 2 * lanes)))
            )
            value = builder.fadd(low, high)
        number = builder.extract_element(value, ir.Constant(ir.IntType(32), 0))
        return context.cast(builder, number, a.element, types.float64)

    return types.float64(a), code


@intrinsic
def to_float64(typing_context, a, half):
    """The first (half 0) or last (half 1) numbers of a float32 vector, as a float64 vector."""
    wide = Vector(types.float64)

    def code(context, builder, signature, args):
        positions = ir.VectorType(ir.IntType(32), wide.lanes)
        first = wide.lanes * half.literal_value
        order = ir.Constant(positions, list(range(first, first + wide.lanes)))
        part = builder.shuffle_vector(args[0], ir.Constant(args[0].type, ir.Undefined), order)
        return builder.fpext(part, context.get_value_type(wide))

    if not isinstance(half, types.IntegerLiteral):
        return None
    return wide(a, half), code


@intrinsic
def _power_of_shifted(typing_context, a):
    """``2**n`` from ``n + _SHIFT``, which has the integer n in the lowest bits of its mantissa."""

    def code(context, builder, signature, args):
        bits, bias, _ = _EXPONENT[64]
        _, vector = _integers(a)
        exponent = builder.add(builder.bitcast(args[0], vector), _constant(vector, bias))
        return builder.bitcast(builder.shl(exponent, _constant(vector, bits)), context.get_value_type(a))

    return a(a), code


@intrinsic
def exponent_to_unit(typing_context, a):
    """Integers k (as floats) for which ``a * 2**-k`` is in [1/2, 1), for normal positive a."""

    def code(context, builder, signature, args):
        bits, bias, _ = _EXPONENT[a.element.bitwidth]
        _, vector = _integers(a)
        field = builder.lshr(builder.bitcast(args[0], vector), _constant(vector, bits))
        return _to_float(builder, builder.sub(field, _constant(vector, bias - 1)), context.get_value_type(a))

    return a(a), code


@intrinsic
def scale_to_unit(typing_context, a):
    """Powers of two ``2**-k`` with the k of `exponent_to_unit`, for a below 2; a large one where a is 0."""

    def code(context, builder, signature, args):
        bits, bias, _ = _EXPONENT[a.element.bitwidth]
        _, vector = _integers(a)
        field = builder.lshr(builder.bitcast(args[0], vector), _constant(vector, bits))
        inverse = builder.sub(_constant(vector, 2 * bias - 1), field)
        return builder.bitcast(builder.shl(inverse, _constant(vector, bits)), context.get_value_type(a))

    return a(a), code


@intrinsic
def _log_exponent(typing_context, a):
    """Integers k (as floats) for which ``a * 2**-k`` is in [sqrt(1/2), sqrt(2))."""

    def code(context, builder, signature, args):
        exponent, _ = _split_at_root_half(builder, a, args[0])
        return _to_float(builder, exponent, context.get_value_type(a))

    return a(a), code


@intrinsic
def _log_mantissa(typing_context, a):
    """``a * 2**-k`` with the k of `_log_exponent`."""

    def code(context, builder, signature, args):
        _, mantissa = _split_at_root_half(builder, a, args[0])
        return builder.bitcast(mantissa, context.get_value_type(a))

    return a(a), code


@intrinsic
def _minus_infinity_at_zero(typing_context, a, log_a):
    """`log_a`, but minus infinity where a is zero."""

    def code(context, builder, signature, args):
        value_type = context.get_value_type(a)
        positive = builder.fcmp_ordered(">", args[0], _constant(value_type, 0.0))
        return builder.select(positive, args[1], _constant(value_type, float("-inf")))

    return a(a, a), code


def _split_at_root_half(builder: Any, a: Vector, value: Any) -> tuple[Any, Any]:
    bits, _, root_half = _EXPONENT[a.element.bitwidth]
    _, vector = _integers(a)
    pattern = builder.bitcast(value, vector)
    above = builder.sub(pattern, _constant(vector, root_half))
    exponent = builder.ashr(above, _constant(vector, bits))
    return exponent, builder.sub(pattern, builder.shl(exponent, _constant(vector, bits)))


def _to_float(builder: Any, integers: Any, float_type: ir.VectorType) -> Any:
    narrow = ir.VectorType(ir.IntType(32), float_type.count)
    return builder.sitofp(
        integers if integers.type == narrow else builder.trunc(integers, narrow), float_type
    )


@njit(forceinline=True)
def log(a):
    """Natural logarithm of a float64 vector of zeros and normal positive numbers.

    With a = 2**k m, m in [sqrt(1/2), sqrt(2)), and s = (m - 1) / (m + 1), log a = k log 2 + 2 artanh(s),
    where |s| < 0.172: the artanh series up to s**19 leaves a relative error below 1e-16.
    """
    one = constant(a, 1.0)
    m = _log_mantissa(a)
    s = (m - one) / (m + one)
    z = s * s
    series = constant(a, 1.0 / 19.0)
    series = series * z + constant(a, 1.0 / 17.0)
    series = series * z + constant(a, 1.0 / 15.0)
    series = series * z + constant(a, 1.0 / 13.0)
    series = series * z + constant(a, 1.0 / 11.0)
    series = series * z + constant(a, 1.0 / 9.0)
    series = series * z + constant(a, 1.0 / 7.0)
    series = series * z + constant(a, 1.0 / 5.0)
    series = series * z + constant(a, 1.0 / 3.0)
    artanh = s + s * (z * series)
    return _minus_infinity_at_zero(a, _log_exponent(a) * constant(a, _LN2) + (artanh + artanh))


@njit(forceinline=True)
def expm1(a):
    """``exp(a) - 1`` of a float64 vector of numbers that are zero or negative.

    With a = n log 2 + r, abs(r) <= log(2) / 2, it is ``2**n (exp(r) - 1) + (2**n - 1)``; the series of exp(r)
    up to r**13 / 13! leaves a relative error below 1e-17.
    """
    a = maximum(a, constant(a, _LOWEST))
    shifted = a * constant(a, 1.0 / _LN2) + constant(a, _SHIFT)
    n = shifted - constant(a, _SHIFT)
    r = (a - n * constant(a, _LN2_HIGH)) - n * constant(a, _LN2_LOW)
    series = constant(a, 1.0 / 13.0)
    for k in range(12, 1, -1):
        series = (series * r + constant(a, 1.0)) * constant(a, 1.0 / k)
    series = series * r + constant(a, 1.0)
    power = _power_of_shifted(shifted)
    return power * (series * r) + (power - constant(a, 1.0))
