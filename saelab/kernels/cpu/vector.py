"""The few vector operations that loops in Python cannot express, as LLVM code that runs on any
processor.

No operation here depends on the instruction set: a product of two float32 numbers is exact in
float64, so it does not matter whether it is fused with the addition, and the lanes of every sum are
written out.
"""

from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

intrinsic: Any = extending.intrinsic  # what it decorates has one argument less than it seems

_LANES = 8
_UNROLL = 4
BLOCK = 32


def _pointer(context, builder, array_type, array, indices, lanes, element):
    view = context.make_array(array_type)(context, builder, array)
    pointer = cgutils.get_item_pointer(
        context, builder, array_type, view, indices, wraparound=False
    )
    return builder.bitcast(pointer, ir.VectorType(element, lanes).as_pointer())


def _splat(builder, value, lanes):
    vector = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(vector, vector, mask)


@intrinsic
def above(typingctx, keys, row, column, threshold):
    """Bit j of the result: keys[row, column + j] > threshold, for j = 0 to 31. keys: int16 or int32
    [rows, columns]."""
    signature = types.uint64(keys, types.int64, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        array, i, j, limit = arguments
        element = context.get_data_type(signature.args[0].dtype)
        pointer = _pointer(context, builder, signature.args[0], array, [i, j], BLOCK, element)
        values = builder.load(pointer, align=signature.args[0].dtype.bitwidth // 8)
        limits = _splat(builder, builder.trunc(limit, element), BLOCK)
        bits = builder.bitcast(builder.icmp_signed(">", values, limits), ir.IntType(BLOCK))
        return builder.zext(bits, ir.IntType(64))

    return signature, generate


@intrinsic
def raise_maxima(typingctx, keys, row, column, maxima, place):
    """maxima[0, place + j] = max(maxima[0, place + j], keys[row, column + j]) for j = 0 to 31, of
    one type of integer."""
    signature = types.void(keys, types.int64, types.int64, maxima, types.int64)

    def generate(context, builder, signature, arguments):
        element = context.get_data_type(signature.args[0].dtype)
        align = signature.args[0].dtype.bitwidth // 8
        array, i, j, held, place = arguments
        pointer = _pointer(context, builder, signature.args[0], array, [i, j], BLOCK, element)
        zero = ir.Constant(ir.IntType(64), 0)
        where = _pointer(context, builder, signature.args[3], held, [zero, place], BLOCK, element)
        values, before = builder.load(pointer, align=align), builder.load(where, align=align)
        larger = builder.select(builder.icmp_signed(">", values, before), values, before)
        builder.store(larger, where, align=align)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def lowest_bit(typingctx, bits):
    """The number of the lowest bit that is set."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def count_bits(typingctx, bits):
    """How many bits are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic
def as_float(typingctx, bits):
    """The float32 number with these 32 bits."""

    def generate(context, builder, signature, arguments):
        low = builder.trunc(arguments[0], ir.IntType(32))
        return builder.bitcast(low, ir.FloatType())

    return types.float32(types.int64), generate


@intrinsic
def as_bits(typingctx, number):
    """The 32 bits of a float32 number, as a signed integer."""

    def generate(context, builder, signature, arguments):
        return builder.sext(builder.bitcast(arguments[0], ir.IntType(32)), ir.IntType(64))

    return types.int64(types.float32), generate


@intrinsic
def dot(typingctx, row, matrix, index):
    """row . matrix[index] of float64 [D] and float32 [rows, D]: 32 interleaved float64 sums, added
    up in one fixed order.
    """
    signature = types.float64(row, matrix, types.int64)

    def generate(context, builder, signature, arguments):
        row_type, matrix_type = signature.args[:2]
        number, vector = ir.DoubleType(), ir.VectorType(ir.DoubleType(), _LANES)
        integer = ir.IntType(64)
        length = context.make_array(row_type)(context, builder, arguments[0]).shape
        length = builder.extract_value(length, 0)
        step = _LANES * _UNROLL
        whole = builder.sub(length, builder.srem(length, ir.Constant(integer, step)))
        sums = [
            cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * _LANES))
            for _ in range(_UNROLL)
        ]
        start = ir.Constant(integer, 0)
        with cgutils.for_range_slice(
            builder, start, whole, ir.Constant(integer, step), intp=integer
        ) as (i, _):
            for lane, total in enumerate(sums):
                at = builder.add(i, ir.Constant(integer, lane * _LANES))
                left = _pointer(context, builder, row_type, arguments[0], [at], _LANES, number)
                right = _pointer(
                    context,
                    builder,
                    matrix_type,
                    arguments[1],
                    [arguments[2], at],
                    _LANES,
                    ir.FloatType(),
                )
                wide = builder.fpext(builder.load(right, align=4), vector)
                product = builder.fmul(builder.load(left, align=8), wide, flags=["contract"])
                builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        rest = cgutils.alloca_once_value(builder, ir.Constant(number, 0.0))
        with cgutils.for_range_slice(
            builder, whole, length, ir.Constant(integer, 1), intp=integer
        ) as (i, _):
            left = _pointer(context, builder, row_type, arguments[0], [i], 1, number)
            right = _pointer(
                context, builder, matrix_type, arguments[1], [arguments[2], i], 1, ir.FloatType()
            )
            zero = ir.Constant(ir.IntType(32), 0)
            wide = builder.fpext(
                builder.extract_element(builder.load(right, align=4), zero), number
            )
            product = builder.fmul(
                builder.extract_element(builder.load(left, align=8), zero), wide, flags=["contract"]
            )
            builder.store(builder.fadd(builder.load(rest), product, flags=["contract"]), rest)
        low = builder.fadd(builder.load(sums[0]), builder.load(sums[1]))
        both = builder.fadd(low, builder.fadd(builder.load(sums[2]), builder.load(sums[3])))
        lanes = _LANES
        while lanes > 1:  # halves upon halves: a few additions deep instead of one per lane
            lanes //= 2
            kind = ir.VectorType(ir.IntType(32), lanes)
            first, second = (
                builder.shuffle_vector(both, both, ir.Constant(kind, list(range(i, i + lanes))))
                for i in (0, lanes)
            )
            both = builder.fadd(first, second)
        whole_sum = builder.extract_element(both, ir.Constant(ir.IntType(32), 0))
        result = builder.fadd(builder.load(rest), whole_sum)
        return result

    return signature, generate


@intrinsic
def prefetch(typingctx, matrix, index):
    """Start loading matrix[index] of float32 [rows, D]."""
    signature = types.void(matrix, types.int64)

    def generate(context, builder, signature, arguments):
        matrix_type = signature.args[0]
        integer, small = ir.IntType(64), ir.IntType(32)
        width = builder.extract_value(
            context.make_array(matrix_type)(context, builder, arguments[0]).shape, 1
        )
        line = ir.Constant(integer, 16)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), small, small, small])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        with cgutils.for_range_slice(
            builder, ir.Constant(integer, 0), width, line, intp=integer
        ) as (i, _):
            pointer = _pointer(
                context, builder, matrix_type, arguments[0], [arguments[1], i], 1, ir.FloatType()
            )
            pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
            builder.call(
                fetch,
                [pointer, ir.Constant(small, 0), ir.Constant(small, 2), ir.Constant(small, 1)],
            )
        return context.get_dummy_value()

    return signature, generate
